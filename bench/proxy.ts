/** What the proxy adds to a call of a guest: the same calls, straight to the guest and through it, in turns. */
import http from 'node:http';
import { text } from 'node:stream/consumers';
import type { Thaw } from '@thaw/sdk';
import { type Figure, figure, quantile } from './figure.ts';

/** Of each way. */
const CALLS = 1_500;
const WARM_CALLS = 150;
/** Of the median. */
const ADDED_MS = 2;
const MEMORY_MB = 128;
const AGENT_PORT = 49_983;

export interface ProxyOptions {
  thaw: Thaw;
  /** Where the proxy listens. */
  proxyUrl: string;
  progress: (text: string) => void;
}

export async function proxy({ thaw, proxyUrl, progress }: ProxyOptions): Promise<Figure[]> {
  progress('calls of a guest, straight and through the proxy');
  const sandbox = await thaw.sandboxes.create({ memory_mb: MEMORY_MB, timeout_sec: 0 });
  const agent = new http.Agent({ keepAlive: true });
  try {
    const headers = { 'E2b-Sandbox-Id': sandbox.id, 'E2b-Sandbox-Port': `${AGENT_PORT}` };
    const direct = () => call(`http://${sandbox.host_ip}:${AGENT_PORT}/health`, agent);
    const proxied = () => call(`${proxyUrl}/health`, agent, headers);
    for (let round = 0; round < WARM_CALLS; round++) {
      await direct();
      await proxied();
    }
    const [straight, through, added]: [number[], number[], number[]] = [[], [], []];
    for (let round = 0; round < CALLS; round++) {
      // Each of a pair comes first half of the time.
      const [first, second] = round % 2 === 0 ? [direct, proxied] : [proxied, direct];
      const times = [await timed(first), await timed(second)];
      const [own, other] = round % 2 === 0 ? times : times.reverse();
      straight.push(own!);
      through.push(other!);
      added.push(other! - own!);
    }
    return [
      figure('a call through the proxy (or straight to the guest): p50', {
        unit: 'ms',
        values: [quantile(through, 0.5)],
        baseline: [quantile(straight, 0.5)],
      }),
      figure('a call through the proxy (or straight to the guest): p99', {
        unit: 'ms',
        values: [quantile(through, 0.99)],
        baseline: [quantile(straight, 0.99)],
      }),
      figure('added by the proxy, p50 of pairs', {
        unit: 'ms',
        values: [quantile(added, 0.5)],
        bar: ADDED_MS,
      }),
    ];
  } finally {
    agent.destroy();
    await thaw.sandboxes.delete(sandbox.id);
  }
}

async function timed(action: () => Promise<void>): Promise<number> {
  const begun = performance.now();
  await action();
  return performance.now() - begun;
}

function call(url: string, agent: http.Agent, headers: Record<string, string> = {}): Promise<void> {
  return new Promise((resolve, reject) => {
    http
      .get(url, { agent, headers }, (response) => {
        text(response).then(() => {
          if (response.statusCode === 204) resolve();
          else reject(new Error(`${url}: ${response.statusCode}`));
        }, reject);
      })
      .on('error', reject);
  });
}
