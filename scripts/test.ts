/**
 * Runs every suite and ends with one line: `N passed, N failed`. Two test files run side by side: those on real VMs have hosts
 * of their own, and wait as often as they work.
 *
 *   node scripts/test.ts [--only vectors|unit|pglite|rust|e2e|vmm] [--filter TEXT]
 */
import { spawn } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { rustTarget } from './rust-target.ts';

interface Counts {
  passed: number;
  failed: number;
}

/** For one file, and so for each of its tests. */
const TEST_TIMEOUT_MS = 1_200_000;

const { values } = parseArgs({ options: { only: { type: 'string' }, filter: { type: 'string' } } });
const root = path.join(import.meta.dirname, '..');
process.chdir(root);

const { target, env } = rustTarget();
const scratch = mkdtempSync(path.join(os.tmpdir(), 'thaw-test-'));

function run(
  command: string,
  args: string[],
  onOutput: (text: string) => void,
  own: NodeJS.ProcessEnv = {},
): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], env: { ...env, ...own } });
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      process.stdout.write(text);
      onOutput(text);
    });
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 1));
  });
}

/** Cargo's summary lines, one for each test binary. A build that fails counts as one failure. */
async function rust(args: string[], own: NodeJS.ProcessEnv = {}): Promise<Counts> {
  const counts = { passed: 0, failed: 0 };
  let output = '';
  const code = await run(
    'cargo',
    ['test', '--profile', 'tests', '--locked', '--no-fail-fast', ...args],
    (text) => {
      output += text;
    },
    own,
  );
  for (const [, passed, failed] of output.matchAll(/^test result: .*? (\d+) passed; (\d+) failed/gm)) {
    counts.passed += Number(passed);
    counts.failed += Number(failed);
  }
  if (code !== 0 && counts.failed === 0) counts.failed = 1;
  return counts;
}

/** Node's test runner over `files`; its totals are read from a TAP copy of the report. */
async function node(files: string[], concurrency: number, own: NodeJS.ProcessEnv = {}): Promise<Counts> {
  const chosen = files.filter((file) => file.includes(values.filter ?? ''));
  if (chosen.length === 0) return { passed: 0, failed: 0 };
  const tap = path.join(scratch, `${concurrency}-${chosen.length}.tap`);
  const code = await run(
    process.execPath,
    [
      '--test',
      `--test-concurrency=${concurrency}`,
      // A test that waits for what never comes, or leaves something open, fails alone instead of stopping the run.
      `--test-timeout=${TEST_TIMEOUT_MS}`,
      '--test-force-exit',
      '--test-reporter=spec',
      '--test-reporter-destination=stdout',
      '--test-reporter=tap',
      `--test-reporter-destination=${tap}`,
      ...chosen,
    ],
    () => {},
    own,
  );
  const report = readFileSync(tap, 'utf8');
  const total = (name: string) => Number(report.match(new RegExp(`^# ${name} (\\d+)$`, 'm'))?.[1] ?? 0);
  const counts = { passed: total('pass'), failed: total('fail') + total('cancelled') };
  if (code !== 0 && counts.failed === 0) counts.failed = 1;
  return counts;
}

/** With the stand-in for Firecracker made before. */
async function onVms(files: string[]): Promise<Counts> {
  const fake = ['build', '--release', '--locked', '--target', target, '-p', 'thaw-fake-firecracker'];
  if ((await run('cargo', fake, () => {})) !== 0) return { passed: 0, failed: 1 };
  return node(files.sort(), 2);
}

const suites: Record<string, () => Promise<Counts>> = {
  vectors: async () => {
    const typescript = await node(globSync('packages/snapshot/src/**/vectors.test.ts'), 1);
    const read = await rust(['--target', target, '-p', 'thaw-snapshot', '--test', 'vectors']);
    return { passed: typescript.passed + read.passed, failed: typescript.failed + read.failed };
  },
  unit: () =>
    node(globSync(['packages/*/src/**/*.test.ts', 'scripts/*.test.ts', 'guest/*.test.ts']).sort(), 2),
  // The control plane once more, on the other engine; what needs a server of its own is left out.
  pglite: () =>
    node(
      globSync('packages/control-plane/src/**/*.test.ts')
        .filter((file) => /TestPlane\.start\((?!\{[^}]*server: true)/.test(readFileSync(file, 'utf8')))
        .sort(),
      2,
      { THAW_TEST_DATABASE: 'pglite' },
    ),
  rust: async () => {
    const workspace = await rust(['--target', target, '--workspace', '--exclude', 'thaw-preload']);
    // Loaded into QEMU, so it is linked against the machine's own C library; its tests load what was built before.
    const dynamic = { RUSTFLAGS: '' };
    const build = ['build', '--profile', 'tests', '--locked', '-p', 'thaw-preload'];
    const built = (await run('cargo', build, () => {}, dynamic)) === 0;
    const preload = built ? await rust(['-p', 'thaw-preload'], dynamic) : { passed: 0, failed: 1 };
    return { passed: workspace.passed + preload.passed, failed: workspace.failed + preload.failed };
  },
  e2e: () => onVms(globSync('tests/**/*.test.ts')),
  // Every VMM against its contract; a real Firecracker in THAW_FIRECRACKER_BIN too.
  vmm: () => onVms(globSync(['packages/host-agent/src/vmm/**/*.test.ts', 'tests/e2e/vm/*.test.ts'])),
};

const names = values.only === undefined ? ['unit', 'pglite', 'rust', 'e2e'] : [values.only];
const counts: Counts = { passed: 0, failed: 0 };
try {
  for (const name of names) {
    const suite = suites[name];
    if (suite === undefined) throw new Error(`no suite called ${name}: ${Object.keys(suites).join(', ')}`);
    console.log(`\n== ${name}`);
    const started = performance.now();
    const result = await suite();
    counts.passed += result.passed;
    counts.failed += result.failed;
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`== ${name}: ${result.passed} passed, ${result.failed} failed in ${seconds} s`);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
console.log(`\n${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed === 0 && counts.passed > 0 ? 0 : 1;
