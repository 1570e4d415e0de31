/**
 * A working set of 4,000 pages after a restore, and one page fault: the pager as it is released, beside a private mapping
 * of the same file and a server of a few lines. `crates/pager/benches/restore` measures, with a program in the VMM's place.
 */
import { spawn } from 'node:child_process';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import path from 'node:path';
import { rustTarget } from '../scripts/rust-target.ts';
import { type Figure, figure, median, rounded } from './figure.ts';

const ROOT = path.join(import.meta.dirname, '..');
/** What is promised, as multiples of the alternative. */
const BARS = { recorded: 1.2, headStart: 0.3, pageByPage: 1 / 20, fault: 1.15, flat: 1.1 };

/** Of each round, by name: milliseconds or, for one fault, microseconds. */
interface Measured {
  mapped_ms: number[];
  bare_ms: number[];
  recorded_ms: number[];
  half_wrong_ms: number[];
  unrecorded_ms: number[];
  head_start_ms: number[];
  bare_fault_us: number[];
  fault_us: number[];
  fault_of_entries_us: number[];
  fault_of_one_us: number[];
  fault_of_generations_us: number[];
}

export async function paging(
  rounds: number,
  signal: AbortSignal,
  progress: (text: string) => void,
): Promise<Figure[]> {
  progress(`memory of a restored VM: ${rounds} rounds`);
  // It writes a gigabyte, and leaves it there if it is interrupted.
  const scratch = await mkdtemp('/var/tmp/thawd-bench-paging-');
  try {
    await chmod(scratch, 0o755);
    return figures(JSON.parse(await measure(rounds, scratch, signal)) as Measured);
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

function figures(measured: Measured): Figure[] {
  const { mapped_ms: mapped, bare_ms: bare, recorded_ms: recorded } = measured;
  const beside = (unit: string) => (values: number[], baseline: number[], times?: number) => ({
    unit,
    values,
    baseline,
    ...(times && { bar: rounded(times * median(baseline)) }),
  });
  const [ms, us] = [beside('ms'), beside('µs')];
  return [
    figure('4,000 pages, all in the record (or a mapped file)', ms(recorded, mapped, BARS.recorded)),
    figure('the same (or page by page, on another CPU)', ms(recorded, bare, BARS.pageByPage)),
    figure('the VM starts 5 ms later (or a mapped file)', ms(measured.head_start_ms, mapped, BARS.headStart)),
    figure('half of the record is wrong (or page by page)', ms(measured.half_wrong_ms, bare)),
    figure('no record (or page by page)', ms(measured.unrecorded_ms, bare)),
    figure(
      'one fault on one CPU (or the bare server)',
      us(measured.fault_us, measured.bare_fault_us, BARS.fault),
    ),
    figure(
      'one fault, of 100,000 header entries (or of one)',
      us(measured.fault_of_entries_us, measured.fault_us, BARS.flat),
    ),
    figure(
      'one fault, of 20 generations (or of one)',
      us(measured.fault_of_generations_us, measured.fault_of_one_us, BARS.flat),
    ),
  ];
}

/** The program's one line of JSON. */
function measure(rounds: number, scratch: string, signal: AbortSignal): Promise<string> {
  const { target, env } = rustTarget();
  const args = ['bench', '--quiet', '--locked', '--target', target, '-p', 'thaw-pager', '--bench', 'restore'];
  return new Promise((resolve, reject) => {
    const child = spawn('cargo', [...args, '--', '--rounds', String(rounds)], {
      cwd: ROOT,
      env: { ...env, TMPDIR: scratch },
      signal,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(output);
      else reject(new Error(`the measurement of the pager ended with status ${code}`));
    });
  });
}
