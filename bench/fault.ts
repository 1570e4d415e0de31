/** What a page costs that comes in when a guest program reads it, beside a fault for each page alone. */
import type { Thaw } from '@thaw/sdk';
import { type Figure, figure } from './figure.ts';

const BALLAST_MIB = 64;
const PAGES = (BALLAST_MIB * 2 ** 20) / 4096;
const FILE = '/dev/shm/ballast';
/** Prints microseconds. */
const READ = `a=$EPOCHREALTIME; cat ${FILE} > /dev/null; b=$EPOCHREALTIME; echo $(( \${b/./} - \${a/./} ))`;

export async function faults(
  thaw: Thaw,
  rounds: number,
  progress: (text: string) => void,
): Promise<Figure[]> {
  const { id } = await thaw.sandboxes.create();
  const sh = async (script: string) => {
    const { stdout, exit_code } = await thaw.sandboxes.exec(id, { cmd: 'bash', args: ['-c', script] });
    if (exit_code !== 0) throw new Error(`"${script}" failed in the guest`);
    return stdout;
  };
  await sh(`head -c ${BALLAST_MIB}M /dev/urandom > ${FILE}`);
  const page: number[] = [];
  const single: number[] = [];
  const each: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    progress(`page faults: round ${round} of ${rounds}`);
    await thaw.sandboxes.pause(id);
    await thaw.sandboxes.resume(id);
    const before = await thaw.sandboxes.stats(id);
    const cold = Number(await sh(READ));
    const after = await thaw.sandboxes.stats(id);
    // The program itself is in memory now, and the emulator knows it: what remains is reading.
    const warm = Math.min(Number(await sh(READ)), Number(await sh(READ)));
    page.push(Math.max(0, cold - warm) / PAGES);
    single.push(after.fault_us.p50);
    each.push((after.pages_faulted - before.pages_faulted) / (after.faults - before.faults));
  }
  await thaw.sandboxes.delete(id);
  return [
    figure('a page that is read in (or the fault of one page)', {
      unit: 'µs',
      values: page,
      baseline: single,
    }),
    figure('pages that one fault brings in', { unit: 'pages', values: each }),
  ];
}
