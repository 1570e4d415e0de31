/** The few questions that the command line asks the host agent: Connect's unary calls with JSON on its Unix socket. */
import http from 'node:http';
import { json } from 'node:stream/consumers';

const ANSWER_WITHIN_MS = 5000;
/** Memory goes to disk. */
const PAUSE_WITHIN_MS = 180_000;

export async function agentAnswers(socket: string): Promise<boolean> {
  return ask(socket, 'GetHost').then(
    () => true,
    () => false,
  );
}

export async function countRunning(socket: string): Promise<number> {
  const { sandboxes = [] } = (await ask(socket, 'ListSandboxes')) as { sandboxes?: { status?: string }[] };
  return sandboxes.filter(({ status }) => status === 'running').length;
}

export async function listSandboxes(socket: string): Promise<{ id: string; status: string }[]> {
  const { sandboxes = [] } = (await ask(socket, 'ListSandboxes')) as {
    sandboxes?: { sandboxId?: string; status?: string }[];
  };
  return sandboxes.map(({ sandboxId = '', status = '' }) => ({ id: sandboxId, status }));
}

export async function pauseSandbox(socket: string, id: string): Promise<void> {
  await ask(socket, 'PauseSandbox', { sandboxId: id }, PAUSE_WITHIN_MS);
}

function ask(
  socketPath: string,
  method: string,
  body: object = {},
  withinMs = ANSWER_WITHIN_MS,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const request = http.request({
      socketPath,
      method: 'POST',
      path: `/hostagent.v1.HostAgentService/${method}`,
      headers: { 'Content-Type': 'application/json' },
      timeout: withinMs,
    });
    request.once('error', reject);
    request.once('timeout', () => request.destroy(new Error('the host agent does not answer')));
    request.once('response', (response) => {
      if (response.statusCode === 200) return json(response).then(resolve, reject);
      response.resume();
      reject(new Error(`${method}: HTTP ${response.statusCode}`));
    });
    request.end(JSON.stringify(body));
  });
}
