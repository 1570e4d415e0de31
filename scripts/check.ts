/** `make check`: formatting, types, lint, clippy, the rules of the tree, generated files as committed. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { tidy } from './tidy.ts';

const root = path.join(import.meta.dirname, '..');
process.chdir(root);

const target = 'x86_64-unknown-linux-musl';
let failed = 0;

function check(name: string, problems: string[]): void {
  console.log(`${problems.length === 0 ? 'ok  ' : 'FAIL'} ${name}`);
  for (const problem of problems) console.log(`     ${problem}`);
  if (problems.length > 0) failed += 1;
}

function command(name: string, argv: string[]): void {
  const result = spawnSync(argv[0]!, argv.slice(1), { encoding: 'utf8', maxBuffer: 64 * 2 ** 20 });
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.trim();
  check(name, result.status === 0 ? [] : [`${argv.join(' ')} failed`, ...output.split('\n').slice(-60)]);
}

/** Regenerates the RPC code beside the committed files and compares. */
function generated(): string[] {
  const problems: string[] = [];
  const scratch = mkdtempSync(path.join(os.tmpdir(), 'thaw-gen-'));
  try {
    for (const config of readdirSync('.').filter((name) => /^buf\.gen.*\.yaml$/.test(name))) {
      const text = readFileSync(config, 'utf8');
      const folder = text.match(/^ *out: (\S+)$/m)?.[1];
      const input = text.match(/^ *(?:directory|module): (\S+)$/m)?.[1];
      if (folder === undefined) continue;
      const out = path.join(scratch, folder);
      const template = path.join(scratch, config);
      const { writeFileSync } = process.getBuiltinModule('node:fs');
      writeFileSync(
        template,
        text
          .replace(/^( *out: )\S+$/m, `$1${out}`)
          .replace('local: node_modules', `local: ${root}/node_modules`),
      );
      const run = spawnSync(
        'buf',
        ['generate', ...(input === undefined ? [] : [input]), '--template', template],
        { encoding: 'utf8' },
      );
      if (run.status !== 0) problems.push(`${config}: ${run.stderr.trim()}`);
      for (const name of run.status === 0 ? readdirSync(out) : []) {
        if (readFileSync(path.join(out, name), 'utf8') !== readFileSync(path.join(folder, name), 'utf8')) {
          problems.push(`${folder}/${name} differs from what ${config} generates: run make generate`);
        }
      }
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return problems;
}

command('formatting and lint (biome)', ['biome', 'ci', '--error-on-warnings', '.']);
command('types (tsc)', ['tsc', '-p', '.']);
command('formatting (rustfmt)', ['cargo', 'fmt', '--all', '--check']);
command('lint (clippy)', [
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
]);
command('lint of the preload (clippy)', [
  'cargo',
  'clippy',
  '--release',
  '--locked',
  '-p',
  'thaw-preload',
  '--',
  '-D',
  'warnings',
]);
check('generated files', generated());
check('rules of the tree', tidy());

console.log(failed === 0 ? '\nall checks passed' : `\n${failed} checks failed`);
process.exitCode = failed === 0 ? 0 : 1;
