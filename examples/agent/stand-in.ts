/**
 * A stand-in for a model: a server with the OpenAI chat completions API that follows a script. Each turn either calls a
 * tool or answers; what a tool answered can be said again by `{result}`.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export type Turn = { call: string; input: Record<string, unknown> } | { say: string };

interface Message {
  role: string;
  content: string | null;
}

export interface StandIn extends AsyncDisposable {
  /** What MODEL_URL is to be. */
  url: string;
  /** The messages of every request. */
  requests: Message[][];
}

export async function standIn(script: readonly Turn[]): Promise<StandIn> {
  const requests: Message[][] = [];
  const server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    const { messages } = JSON.parse(body) as { messages: Message[] };
    requests.push(messages);
    const turn = script[requests.length - 1];
    const known = request.method === 'POST' && request.url === '/v1/chat/completions' && turn !== undefined;
    response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' });
    response.end(
      JSON.stringify(known ? completion(turn, messages, requests.length) : { error: { message: 'no' } }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/v1`,
    requests,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function completion(turn: Turn, messages: readonly Message[], at: number): unknown {
  const result = messages.findLast(({ role }) => role === 'tool')?.content ?? '';
  const message =
    'say' in turn
      ? { role: 'assistant', content: turn.say.replace('{result}', result) }
      : {
          role: 'assistant',
          content: null,
          tool_calls: [
            {
              id: `call-${at}`,
              type: 'function',
              function: { name: turn.call, arguments: JSON.stringify(turn.input) },
            },
          ],
        };
  const reason = 'say' in turn ? 'stop' : 'tool_calls';
  return {
    id: `completion-${at}`,
    object: 'chat.completion',
    created: 0,
    model: 'stand-in',
    choices: [{ index: 0, message, finish_reason: reason }],
    usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 },
  };
}
