/** What a guest says of its load: the guest agent's `GET /metrics`. Nothing it says is taken on trust. */
import http from 'node:http';
import { ThawError } from '@thaw/api';
import { z } from 'zod';
import { GUEST_PORT, type Guest } from './guest.ts';

/** Bytes as far as a number holds them exactly. */
const bytes = z.number().int().nonnegative();
const schema = z.object({
  cpu_count: z.number().int().min(0).max(4096),
  /** Of all CPUs together, since the last question. */
  cpu_used_pct: z.number().min(0).max(100),
  mem_used: bytes,
  mem_total: bytes,
  mem_cache: bytes.default(0),
  disk_used: bytes,
  disk_total: bytes,
});

export interface Load {
  cpuCount: number;
  /** Percent of all CPUs together. */
  cpuUsedPct: number;
  memUsedBytes: number;
  memTotalBytes: number;
  memCacheBytes: number;
  diskUsedBytes: number;
  diskTotalBytes: number;
}

const ANSWER_CHARS_MAX = 4096;

/** Throws `agent_error` for nonsense, or why `signal` was aborted. */
export async function readLoad(guest: Guest, signal: AbortSignal): Promise<Load> {
  const load = parse(await ask(guest, signal));
  return {
    cpuCount: load.cpu_count,
    cpuUsedPct: load.cpu_used_pct,
    memUsedBytes: load.mem_used,
    memTotalBytes: load.mem_total,
    memCacheBytes: load.mem_cache,
    diskUsedBytes: load.disk_used,
    diskTotalBytes: load.disk_total,
  };
}

/** Errors tell nothing of the text: logs must not. */
function parse(text: string): z.output<typeof schema> {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    throw new ThawError('agent_error', 'the guest tells no load');
  }
}

async function ask({ host, agent, headers }: Guest, signal: AbortSignal): Promise<string> {
  // The guest's own connections: they end with its VM, before somebody else has the address.
  const request = http.get({ host, port: GUEST_PORT, path: '/metrics', agent, headers, signal });
  try {
    const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
      request.on('response', resolve).on('error', reject);
    });
    if (response.statusCode !== 200)
      throw new ThawError('agent_error', `the guest answered ${response.statusCode}`);
    let text = '';
    for await (const chunk of response.setEncoding('utf8')) {
      text += chunk;
      if (text.length > ANSWER_CHARS_MAX) throw new ThawError('agent_error', 'the guest says too much');
    }
    return text;
  } catch (error) {
    request.destroy();
    throw error;
  }
}
