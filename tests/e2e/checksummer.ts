/**
 * The judge of guest/checksummer.py: replays the same steps on buffers of its own.
 *
 * `stream(label, n)` is the first n bytes of SHAKE-128 of `SEED/label`. Page i of a region starts as zeros if
 * i mod 4 = 3, else as `stream(fill/REGION/i, 4096)`. Step n takes four u32 from `stream(step/n, 16)`: where, kind,
 * at, which. which mod 4 = 0 means the disk, else the memory; where mod size is the page. kind mod 4:
 * 0, 1: `stream(content/n, 4096)`; 2: zeros; 3: `stream(content/n, 64)` at offset `at` mod 4032.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { eventually, type TestThaw } from './harness.ts';

const PAGE = 4096;
const PARTIAL = 64;
const SUM_BYTES = 4;
const NAMED_MAX = 20;
const IN = '/tmp/checksummer.in';
const OUT = '/tmp/checksummer.out';
const FILE = '/root/checksummer.blocks';

export interface ChecksummerOptions {
  seed: string;
  pages: number;
  blocks: number;
}

export class Checksummer {
  readonly #thaw: TestThaw;
  readonly #id: string;
  readonly #seed: string;
  readonly #memory: Buffer;
  readonly #disk: Buffer;
  #steps: number;

  private constructor(
    thaw: TestThaw,
    id: string,
    seed: string,
    { memory, disk, steps }: { memory: Buffer; disk: Buffer; steps: number },
  ) {
    this.#thaw = thaw;
    this.#id = id;
    this.#seed = seed;
    this.#memory = memory;
    this.#disk = disk;
    this.#steps = steps;
  }

  /** Starts it in a sandbox that has python3; it changes nothing before `go`. */
  static async start(thaw: TestThaw, id: string, options: ChecksummerOptions): Promise<Checksummer> {
    const { seed, pages, blocks } = options;
    const regions = { memory: fill(seed, 'memory', pages), disk: fill(seed, 'disk', blocks) };
    const judge = new Checksummer(thaw, id, seed, { ...regions, steps: 0 });
    const program = await readFile(path.join(import.meta.dirname, 'guest/checksummer.py'));
    await thaw.sdk.sandboxes.writeFile(id, '/root/checksummer.py', program);
    const args = [options.seed, options.pages, options.blocks, FILE, IN, OUT].join(' ');
    await thaw.sh(id, `setsid python3 /root/checksummer.py ${args} < /dev/null > /root/said 2>&1 &`);
    await eventually(() => thaw.sh(id, `cat /root/said >&2; test -p ${OUT}`), 120_000);
    return judge;
  }

  /** Of a fork of the sandbox, in which the program goes on by itself. */
  inFork(id: string): Checksummer {
    return new Checksummer(this.#thaw, id, this.#seed, {
      memory: Buffer.from(this.#memory),
      disk: Buffer.from(this.#disk),
      steps: this.#steps,
    });
  }

  /** Has it free memory in pieces that the guest's kernel gives back to the host. */
  async free(): Promise<void> {
    await this.#thaw.sh(this.#id, `echo ballast > ${IN}`);
  }

  async go(): Promise<void> {
    await this.#thaw.sh(this.#id, `echo go > ${IN}`);
  }

  /** Halts it and asserts that every page and block is what the steps make of it. Returns the steps so far. */
  async check(message: string): Promise<number> {
    const asked = this.#thaw.sdk.sandboxes.exec(this.#id, {
      cmd: 'sh',
      args: ['-c', `cat /root/said >&2; echo halt > ${IN}; cat ${OUT}`],
      timeout_sec: 120,
    });
    const { stdout, stderr, exit_code, encoding } = await asked.catch(async (cause: Error) => {
      throw new Error(`${message}: ${cause.message}; the program: ${await this.#state()}`, { cause });
    });
    assert.deepEqual([exit_code, stderr, encoding], [0, '', 'base64'], message);
    const answer = Buffer.from(stdout, 'base64');
    const steps = Number(answer.readBigUInt64LE());
    assert.ok(steps >= this.#steps, `${message}: ${this.#steps} steps became ${steps}`);
    while (this.#steps < steps) this.#step(this.#steps++);
    const wrong = differences(answer.subarray(8), this.#sums());
    const memoryPages = this.#memory.length / PAGE;
    const named = wrong.map((i) => (i < memoryPages ? `page ${i}` : `block ${i - memoryPages}`));
    const what = `${message}: ${named.length} wrong after ${steps} steps`;
    assert.deepEqual(named.slice(0, NAMED_MAX), [], what);
    return steps;
  }

  /** What it said, and whether it lives. */
  #state(): Promise<string> {
    const processes = 'grep -ls checksummer.py /proc/[0-9]*/cmdline | xargs dirname';
    const look = `cat /root/said; for each in $(${processes}); do grep State $each/status; cat $each/stack; done; dmesg | tail`;
    return this.#thaw.sh(this.#id, look).catch(String);
  }

  #stream(label: string, bytes: number): Buffer {
    return stream(this.#seed, label, bytes);
  }

  #step(number: number): void {
    const numbers = this.#stream(`step/${number}`, 16);
    const [where, kind, at, which] = [0, 4, 8, 12].map((offset) => numbers.readUInt32LE(offset)) as [
      number,
      number,
      number,
      number,
    ];
    const region = which % 4 === 0 ? this.#disk : this.#memory;
    const start = (where % (region.length / PAGE)) * PAGE;
    if (kind % 4 < 2) this.#stream(`content/${number}`, PAGE).copy(region, start);
    else if (kind % 4 === 2) region.fill(0, start, start + PAGE);
    else this.#stream(`content/${number}`, PARTIAL).copy(region, start + (at % (PAGE - PARTIAL)));
  }

  #sums(): Buffer {
    const sums: Buffer[] = [];
    for (const region of [this.#memory, this.#disk]) {
      for (let start = 0; start < region.length; start += PAGE) {
        const page = region.subarray(start, start + PAGE);
        sums.push(createHash('md5').update(page).digest().subarray(0, SUM_BYTES));
      }
    }
    return Buffer.concat(sums);
  }
}

function stream(seed: string, label: string, outputLength: number): Buffer {
  return createHash('shake128', { outputLength }).update(`${seed}/${label}`).digest();
}

function fill(seed: string, region: string, count: number): Buffer {
  const pages = Array.from({ length: count }, (_, i) =>
    i % 4 === 3 ? Buffer.alloc(PAGE) : stream(seed, `fill/${region}/${i}`, PAGE),
  );
  return Buffer.concat(pages);
}

function differences(found: Buffer, expected: Buffer): number[] {
  assert.equal(found.length, expected.length);
  const wrong: number[] = [];
  for (let at = 0; at < found.length; at += SUM_BYTES) {
    if (!found.subarray(at, at + SUM_BYTES).equals(expected.subarray(at, at + SUM_BYTES)))
      wrong.push(at / SUM_BYTES);
  }
  return wrong;
}
