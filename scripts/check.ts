/** `make check`: formatting, types, lint, generated files as committed, the rules of the tree. */
import { spawnSync } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { rustTarget } from './rust-target.ts';
import { tidy } from './tidy.ts';

const root = path.join(import.meta.dirname, '..');
process.chdir(root);

const { target, env } = rustTarget();
let failed = 0;

function check(name: string, problems: string[]): void {
  console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'} ${name}`);
  for (const problem of problems) console.log(`     ${problem}`);
  if (problems.length > 0) failed += 1;
}

function command(name: string, argv: string[], environment = process.env): void {
  const result = spawnSync(argv[0]!, argv.slice(1), {
    encoding: 'utf8',
    maxBuffer: 64 * 2 ** 20,
    env: environment,
  });
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim();
  check(name, result.status === 0 ? [] : [`${argv.join(' ')} failed`, ...output.split('\n').slice(-60)]);
}

/** Generates the RPC code of every template into a folder apart and compares it with the committed files. */
function generated(): string[] {
  const problems: string[] = [];
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'thaw-gen-'));
  try {
    for (const template of globSync('buf.gen*.yaml').sort()) {
      const run = spawnSync('buf', ['generate', '--template', template, '--output', scratch], {
        encoding: 'utf8',
      });
      if (run.status !== 0) problems.push(`${template}: ${run.error ?? run.stderr.trim()}`);
    }
    if (problems.length > 0) return problems;
    const fresh = globSync('**/*.ts', { cwd: scratch });
    for (const file of new Set([...fresh, ...globSync('packages/*/src/gen/*.ts')])) {
      const made = fresh.includes(file) ? readFileSync(path.join(scratch, file), 'utf8') : undefined;
      const committed = existsSync(file) ? readFileSync(file, 'utf8') : undefined;
      if (made !== committed) problems.push(`${file} is not what make generate makes`);
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return problems;
}

/** The API's description, which the routes make. */
function described(): string[] {
  const run = spawnSync(process.execPath, ['packages/control-plane/src/main.ts', 'openapi'], {
    encoding: 'utf8',
  });
  if (run.status !== 0) return [`the API's description: ${run.stderr.trim()}`];
  return run.stdout === readFileSync('spec/openapi.yaml', 'utf8')
    ? []
    : ['spec/openapi.yaml is not what make generate makes'];
}

command('formatting and lint (biome)', ['biome', 'ci', '--colors=off', '--error-on-warnings', '.']);
command('types (tsc)', ['tsc', '-p', '.']);
command('formatting (rustfmt)', ['cargo', 'fmt', '--all', '--check']);
command(
  'lint (clippy)',
  [
    'cargo',
    'clippy',
    '--release',
    '--locked',
    '--target',
    target,
    '--workspace',
    '--exclude',
    'thaw-preload',
    '--all-targets',
    '--',
    '-D',
    'warnings',
  ],
  env,
);
command('lint of the preload (clippy)', [
  'cargo',
  'clippy',
  '--release',
  '--locked',
  '-p',
  'thaw-preload',
  '--all-targets',
  '--',
  '-D',
  'warnings',
]);
check('generated files', [...generated(), ...described()]);
check('rules of the tree', tidy());

console.log(failed === 0 ? '\nall checks passed' : `\n${failed} checks failed`);
process.exitCode = failed === 0 ? 0 : 1;
