/** What a page costs that comes in with its neighbours when a guest program reads it, beside a fault for it alone. */
import type { Thaw } from '@thaw/sdk';
import { type Figure, figure } from './figure.ts';

const HALF_MIB = 64;
const PAGE = 4096;
/** What the pager brings in around a fault: reading one page in so many finds every time a missing one. */
const WINDOW = 64 * 1024;
const FILE = '/dev/shm/ballast';
const TIMEOUT_SEC = 60;

/** Reads one half of a file in memory page by page, of the other one page in each window; prints seconds, cold and warm. */
const READ = `
import mmap, time
half = ${HALF_MIB} << 20
with open("${FILE}", "rb") as f:
    memory = mmap.mmap(f.fileno(), 2 * half, mmap.MAP_SHARED, mmap.PROT_READ)
def touch(start, step):
    began = time.perf_counter()
    for at in range(start, start + half, step):
        memory[at]
    return time.perf_counter() - began
cold = touch(0, ${PAGE}), touch(half, ${WINDOW})
warm = touch(0, ${PAGE}), touch(half, ${WINDOW})
print(*cold, *warm)
`;

export async function faults(
  thaw: Thaw,
  rounds: number,
  progress: (text: string) => void,
): Promise<Figure[]> {
  const { id } = await thaw.sandboxes.create({ template: 'base' });
  const run = async (cmd: string, ...args: string[]) => {
    const { stdout, stderr, exit_code } = await thaw.sandboxes.exec(id, {
      cmd,
      args,
      timeout_sec: TIMEOUT_SEC,
    });
    if (exit_code !== 0) throw new Error(`${cmd} failed in the guest: ${stderr}`);
    return stdout;
  };
  await run('sh', '-c', `head -c ${2 * HALF_MIB}M /dev/urandom > ${FILE}`);
  const together: number[] = [];
  const alone: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    progress(`page faults: round ${round} of ${rounds}`);
    await thaw.sandboxes.pause(id);
    await thaw.sandboxes.resume(id);
    const seconds = (await run('python3', '-c', READ)).trim().split(' ').map(Number);
    const [allCold, someCold, allWarm, someWarm] = seconds as [number, number, number, number];
    const half = HALF_MIB * 2 ** 20;
    together.push(((allCold - allWarm) * 1e6) / (half / PAGE));
    alone.push(((someCold - someWarm) * 1e6) / (half / WINDOW));
  }
  await thaw.sandboxes.delete(id);
  return [
    figure('a missing page that a program reads (or a fault for each page)', {
      unit: 'µs',
      values: together,
      baseline: alone,
    }),
  ];
}
