/** The rules of the tree that no linter knows: sizes, import directions, where SQL, paths and unsafe may stand. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

const FILE_LINES_MAX = 500;

/** Rust files that talk to the kernel. */
const UNSAFE_FILES = [
  /^crates\/control\/src\/inherit\.rs$/,
  /^crates\/pager\/src\/(uffd|mmap|pagemap|memory|sys)\.rs$/,
  /^crates\/preload\/src\//,
  /^crates\/keeper\/src\/(exec|sys)\.rs$/,
  /^crates\/blockstore\/src\/sys\.rs$/,
  /^crates\/envd\/src\/(kernel\/entropy|process\/launch)\.rs$/,
  /^crates\/init\/src\/sys\.rs$/,
];

/** What a package may import from the others. */
const MAY_IMPORT: Record<string, string[]> = {
  api: [],
  snapshot: [],
  'control-plane': ['api'],
  'host-agent': ['api', 'snapshot'],
  sdk: ['api'],
  cli: ['api', 'sdk'],
};

const BANNED_NAMES = /(^|\/)[^/]*(manager|service|utils|helpers|core)[^/]*\.(ts|rs)$/;
const VERBS = ['create', 'pause', 'resume', 'snapshot', 'destroy'];

function tracked(): string[] {
  const listed = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    encoding: 'utf8',
  });
  return listed.stdout.split('\n').filter((file) => /\.(ts|rs)$/.test(file) && existsSync(file));
}

function imports(text: string): string[] {
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1]!);
}

function checkTypeScript(file: string, text: string): string[] {
  const problems: string[] = [];
  const owner = file.match(/^packages\/([^/]+)\//)?.[1];
  const test = file.endsWith('.test.ts');
  for (const target of imports(text)) {
    const other = target.match(/^@thaw\/([^/]+)/)?.[1];
    if (owner !== undefined && other !== undefined && !test && !MAY_IMPORT[owner]!.includes(other)) {
      problems.push(`${file}: packages/${owner} may not import @thaw/${other}`);
    }
    if (owner !== undefined && target.startsWith('.')) {
      const resolved = path.join(path.dirname(file), target);
      if (!resolved.startsWith(`packages/${owner}/`) && !test)
        problems.push(`${file}: imports ${target} from another package`);
    }
    if (/(^|\/)sandbox\/[a-z]+\.ts$/.test(file) && !test) {
      const verb = path.basename(target, '.ts');
      const self = path.basename(file, '.ts');
      if (target.startsWith('./') && VERBS.includes(verb) && VERBS.includes(self)) {
        problems.push(`${file}: a verb imports the verb ${verb}`);
      }
    }
  }
  if (
    owner === 'control-plane' &&
    !test &&
    !/table\.ts$|\/db\//.test(file) &&
    /\.(selectFrom|insertInto|updateTable|deleteFrom)\(|\bsql`/.test(text)
  ) {
    problems.push(`${file}: SQL stands only in table.ts files`);
  }
  return problems;
}

function cycles(files: string[]): string[] {
  const graph = new Map<string, string[]>();
  for (const file of files.filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))) {
    const code = readFileSync(file, 'utf8').replace(/^(import|export) type [^;]*;$/gm, '');
    graph.set(
      file,
      imports(code)
        .filter((target) => target.startsWith('.'))
        .map((target) => path.join(path.dirname(file), target)),
    );
  }
  const problems: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, trail: string[]): void => {
    if (trail.includes(file)) {
      problems.push(`import cycle: ${[...trail.slice(trail.indexOf(file)), file].join(' -> ')}`);
      return;
    }
    if (done.has(file)) return;
    for (const next of graph.get(file) ?? []) visit(next, [...trail, file]);
    done.add(file);
  };
  for (const file of graph.keys()) visit(file, []);
  return problems;
}

/** Every broken rule as `file: what`. Run from the root of the repository. */
export function tidy(): string[] {
  const files = tracked();
  const problems = cycles(files);
  for (const file of files) {
    const text = readFileSync(file, 'utf8');
    const generated = file.includes('/gen/');
    const lines = text.split('\n').length - 1;
    if (!generated && lines > FILE_LINES_MAX)
      problems.push(`${file}: ${lines} lines, the most is ${FILE_LINES_MAX}`);
    if (BANNED_NAMES.test(file)) problems.push(`${file}: named for a role, not for a noun or a verb`);
    if (file.endsWith('.ts') && !generated) problems.push(...checkTypeScript(file, text));
    const unsafeAllowed =
      UNSAFE_FILES.some((allowed) => allowed.test(file)) || /\/(tests|examples)\//.test(file);
    if (file.endsWith('.rs') && !unsafeAllowed && /\bunsafe\b/.test(text.replace(/\/\/.*$/gm, ''))) {
      problems.push(`${file}: unsafe stands only in the files that talk to the kernel`);
    }
  }
  return problems;
}
