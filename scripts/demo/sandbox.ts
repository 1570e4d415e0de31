/** One sandbox of the demo, driven by the REST API, and the counter that runs in it. */
import { readFile } from 'node:fs/promises';
import type { ThrowawayThaw } from '../throwaway/thaw.ts';

/** The fields of a sandbox that the demo looks at. */
export interface SandboxView {
  id: string;
  status: string;
  isolation?: string;
  vmm?: string;
  backend?: string;
  build?: { generation: number; stored_bytes: number };
  timings_ms?: Record<string, number>;
}

export interface Stats {
  memory_bytes: number;
  resident_bytes: number;
  pages_faulted: number;
  pages_total: number;
  faults: number;
  fault_us: { p50: number; p99: number };
  pids: Record<string, number>;
}

/** One count of the counter and the guest's time then, in ms since 1970. */
export interface Tick {
  count: number;
  atMs: number;
}

/** Counts ten times a second in a variable of its own, and notes when: in memory, both. */
export const COUNTER = `for ((n = 1; ; n++)); do
  echo "$n $EPOCHREALTIME" >> /dev/shm/ticks
  sleep 0.1
done
`;

export class DemoSandbox {
  readonly id: string;
  readonly #thaw: ThrowawayThaw;

  constructor(thaw: ThrowawayThaw, id: string) {
    this.#thaw = thaw;
    this.id = id;
  }

  static async create(thaw: ThrowawayThaw, wish: object): Promise<DemoSandbox> {
    const { id } = await thaw.api<SandboxView>('POST', '/v1/sandboxes', wish);
    return new DemoSandbox(thaw, id);
  }

  view(): Promise<SandboxView> {
    return this.#thaw.api('GET', `/v1/sandboxes/${this.id}`);
  }

  stats(): Promise<Stats> {
    return this.#thaw.api('GET', `/v1/sandboxes/${this.id}/stats`);
  }

  pause(): Promise<SandboxView> {
    return this.#thaw.api('POST', `/v1/sandboxes/${this.id}/pause`);
  }

  resume(): Promise<SandboxView> {
    return this.#thaw.api('POST', `/v1/sandboxes/${this.id}/resume`);
  }

  /** Standard output, trimmed, of a script that must succeed. */
  sh(script: string): Promise<string> {
    return this.exec('bash', '-c', script);
  }

  /** Standard output, trimmed, of a command that must succeed. */
  async exec(cmd: string, ...args: string[]): Promise<string> {
    const { stdout, stderr, exit_code } = await this.#thaw.api<{
      stdout: string;
      stderr: string;
      exit_code: number;
    }>('POST', `/v1/sandboxes/${this.id}/exec`, { cmd, args, timeout_sec: 60 });
    if (exit_code !== 0) throw new Error(`${[cmd, ...args].join(' ')} failed in the guest: ${stderr.trim()}`);
    return stdout.trim();
  }

  async ticks(): Promise<Tick[]> {
    const lines = (await this.sh('cat /dev/shm/ticks')).split('\n');
    // The last line may still be in the making.
    return lines.slice(0, -1).map((line) => {
      const [count, seconds] = line.split(' ');
      return { count: Number(count), atMs: Number(seconds) * 1000 };
    });
  }

  /** How far the guest's clock is from ours at most, in ms. */
  async clockOffMs(): Promise<number> {
    const before = Date.now();
    const guest = Number(await this.sh('echo $EPOCHREALTIME')) * 1000;
    return Math.max(Math.abs(guest - before), Math.abs(guest - Date.now()));
  }
}

/** Counts that follow each other without a gap or a repetition. */
export function unbroken(ticks: readonly Tick[]): boolean {
  return ticks.length > 0 && ticks.every(({ count }, index) => count === index + 1);
}

/** Memory that processes of this machine have, shared parts counted once; 0 for those that are gone. */
export async function memoryOf(pids: readonly number[]): Promise<number> {
  let bytes = 0;
  for (const pid of pids) {
    const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
    bytes += Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024;
  }
  return bytes;
}

/** Processor time that processes of this machine have used, in ms. */
export async function processorMs(pids: readonly number[]): Promise<number> {
  let ticks = 0;
  for (const pid of pids) {
    const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    ticks += Number(fields[11] ?? 0) + Number(fields[12] ?? 0);
  }
  return ticks * 10;
}
