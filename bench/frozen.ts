/** How long a VM stands still when much of its memory has changed, beside writing the same bytes and dumping everything. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { Thaw } from '@thaw/sdk';
import { type Figure, figure, median } from './figure.ts';
import { fullDump } from './full-dump.ts';

const BALLAST_MIB = 512;
const MEMORY_MB = 1280;
const MIB = 2 ** 20;
const PAGE = 4096;
const TEMPLATE = 'bench-frozen';
const FILE = '/dev/shm/ballast';
/** Of the ballast, and how many times less than a full dump it has to be. */
const SHARES = [
  { percent: 1, times: 20 },
  { percent: 10, times: 10 },
  { percent: 100, times: 2 },
] as const;
/** Beside the device state: so many times writing the bytes, and so much more. */
const WRITES = 1.6;
const SPARE_MS = 10;

/** Changes one byte in each of so many pages, spread evenly. */
const CHANGE = `
import mmap, sys
share = int(sys.argv[1])
with open("${FILE}", "r+b") as f:
    memory = mmap.mmap(f.fileno(), 0)
for page in range(0, len(memory), ${PAGE} * 100 // share):
    at = page & ~${PAGE - 1}
    memory[at] = memory[at] + 1 & 255
`;

interface Round {
  frozen: number;
  save: number;
  write: number;
  dump: number;
}

export async function frozen(
  thaw: Thaw,
  { rounds, scratch, progress }: { rounds: number; scratch: string; progress: (text: string) => void },
): Promise<Figure[]> {
  const { id } = await thaw.sandboxes.create({ template: 'base', memory_mb: MEMORY_MB });
  const run = async (cmd: string, ...args: string[]) => {
    const { stderr, exit_code } = await thaw.sandboxes.exec(id, { cmd, args, timeout_sec: 120 });
    if (exit_code !== 0) throw new Error(`${cmd} failed in the guest: ${stderr}`);
  };
  // From then on its memory is one mapping.
  await thaw.sandboxes.pause(id);
  await thaw.sandboxes.resume(id);
  await run('sh', '-c', `head -c ${BALLAST_MIB}M /dev/urandom > ${FILE}`);
  const seal = async () => {
    await thaw.snapshots.create(id, { name: TEMPLATE, overwrite: true });
    for await (const { verb, timings_ms } of thaw.sandboxes.events(id))
      if (verb === 'snapshot') return timings_ms ?? {};
    throw new Error('the snapshot is in no history');
  };
  await seal();
  const figures: Figure[] = [];
  for (const { percent, times } of SHARES) {
    const measured: Round[] = [];
    for (let round = 1; round <= rounds; round++) {
      progress(`standing still with ${percent} % changed: round ${round} of ${rounds}`);
      await run('python3', '-c', CHANGE, String(percent));
      const { pids, memory_bytes } = await thaw.sandboxes.stats(id);
      const dump = fullDump(pids.vmm!, memory_bytes, path.join(scratch, 'memory')).ms;
      const write = writing((BALLAST_MIB * MIB * percent) / 100, path.join(scratch, 'bytes'));
      const timings = await seal();
      measured.push({ frozen: timings.frozen!, save: timings['snapshot:save']!, write, dump });
    }
    const of = (name: keyof Round) => measured.map((round) => round[name]);
    const writes = median(of('save')) + WRITES * median(of('write')) + SPARE_MS;
    figures.push(
      figure(`frozen with ${percent} % of ${BALLAST_MIB} MiB changed (or full dump + filter)`, {
        unit: 'ms',
        values: of('frozen'),
        baseline: of('dump'),
        bar: Math.round(Math.min(writes, median(of('dump')) / times)),
      }),
    );
  }
  await thaw.sandboxes.delete(id);
  await thaw.snapshots.delete(TEMPLATE);
  return figures;
}

/** Milliseconds to write so many bytes of own memory into a new file, up to the page cache. */
function writing(bytes: number, file: string): number {
  const content = randomBytes(Math.round(bytes));
  const fd = fs.openSync(file, 'w');
  try {
    const started = performance.now();
    for (let at = 0; at < content.length; )
      at += fs.writeSync(fd, content, at, Math.min(MIB, content.length - at));
    return performance.now() - started;
  } finally {
    fs.closeSync(fd);
    fs.rmSync(file);
  }
}
