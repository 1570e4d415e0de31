/** The rules of the tree that no linter knows: sizes, import directions, where SQL and unsafe may stand, links of documents. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

const FILE_LINES_MAX = 500;

/** The files that may hold unsafe code, each because it talks to the kernel or to a C library. */
const UNSAFE_FILES = [
  'crates/control/src/inherit.rs',
  'crates/envd/src/kernel/entropy.rs',
  'crates/envd/src/loopback/bpf.rs',
  'crates/envd/src/process/spawn.rs',
  'crates/envd/src/readable.rs',
  'crates/fake-firecracker/src/bin/fake-jailer.rs',
  'crates/fake-firecracker/src/guest_memory.rs',
  'crates/fake-firecracker/src/tap.rs',
  'crates/fake-firecracker/src/uffd.rs',
  'crates/keeper/src/exec.rs',
  'crates/keeper/src/sys.rs',
  'crates/pager/src/memory.rs',
  'crates/pager/src/mmap.rs',
  'crates/pager/src/pagemap.rs',
  'crates/pager/src/probe.rs',
  'crates/pager/src/uffd.rs',
  'crates/preload/src/abort.rs',
  'crates/preload/src/disk.rs',
  'crates/preload/src/guest_memory.rs',
  'crates/preload/src/handshake.rs',
  'crates/preload/src/heap.rs',
  'crates/preload/src/image.rs',
  'crates/preload/src/inode.rs',
  'crates/preload/src/interpose.rs',
  'crates/preload/src/lib.rs',
  'crates/preload/src/uffd.rs',
];

/** What a package may import from the others. Clients of the REST API load nothing of the daemons' protocol. */
const MAY_IMPORT: Record<string, string[]> = {
  api: [],
  snapshot: [],
  'control-plane': ['api', 'api/rpc'],
  'host-agent': ['api', 'api/rpc', 'snapshot'],
  sdk: ['api'],
  cli: ['api', 'sdk'],
};

/** What is run by people, by make or by the installation, and packages' entries. */
const PROGRAMS =
  /(^|\/)main\.ts$|\.test\.ts$|^packages\/(api|sdk|snapshot)\/src\/(index|rpc)\.ts$|\/gen\/|^scripts\/|^guest\/build\.ts$|^tests\/compat\/make\.ts$/;

const BANNED_NAMES = /(^|\/)[^/]*(manager|service|utils|helpers|core)[^/]*\.(ts|rs)$/;
const VERBS = ['create', 'pause', 'resume', 'snapshot', 'destroy'];

function tracked(kinds: RegExp): string[] {
  const listed = spawnSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
    encoding: 'utf8',
  });
  return listed.stdout.split('\n').filter((file) => kinds.test(file) && existsSync(file));
}

function imports(text: string): string[] {
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1]!);
}

function checkTypeScript(file: string, text: string): string[] {
  const problems: string[] = [];
  const owner = file.match(/^packages\/([^/]+)\//)?.[1];
  const test = file.endsWith('.test.ts');
  for (const target of imports(text)) {
    const other = target.match(/^@thaw\/(.+)$/)?.[1];
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

/** Modules that no other one names, be it to import them or to run them. */
function unused(files: string[]): string[] {
  const modules = files.filter((name) => name.endsWith('.ts'));
  const named = new Set(
    modules.flatMap((file) => {
      const names = readFileSync(file, 'utf8').matchAll(/'([^'\n]+\.ts)'/g);
      return [...names].map((match) => path.join(path.dirname(file), match[1]!));
    }),
  );
  return modules
    .filter((file) => !named.has(file) && !PROGRAMS.test(file))
    .map((file) => `${file}: nothing uses it`);
}

function checkUnsafe(file: string, text: string): string[] {
  if (/\/tests\//.test(file)) return [];
  const holds = /\bunsafe\b/.test(text.replace(/\/\/.*$/gm, ''));
  const named = UNSAFE_FILES.includes(file);
  if (holds && !named) return [`${file}: unsafe stands only in the files that talk to the kernel`];
  if (!holds && named) return [`${file}: named as a file with unsafe code, and has none`];
  return [];
}

/** Links of a document to files that are not there, or to headings that a file does not have. */
function deadLinks(file: string): string[] {
  const prose = readFileSync(file, 'utf8').replace(/^```[\s\S]*?^```/gm, '');
  const targets = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map((match) => match[1]!);
  return targets
    .map((target) => (target.startsWith('#') ? `${path.basename(file)}${target}` : target))
    .filter((target) => !/^[a-z]+:/.test(target) && !existsTarget(path.dirname(file), target))
    .map((target) => `${file}: links to ${target}, which is not there`);
}

function existsTarget(folder: string, target: string): boolean {
  const [name = '', heading] = target.split('#');
  const file = path.join(folder, name);
  if (!existsSync(file)) return false;
  if (heading === undefined) return true;
  const headings = readFileSync(file, 'utf8').matchAll(/^#+ (.*)$/gm);
  const slug = (text: string) =>
    text
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-');
  return [...headings].some((match) => slug(match[1]!) === heading);
}

/** Every broken rule as `file: what`. Run from the root of the repository. */
export function tidy(): string[] {
  const files = tracked(/\.(ts|rs)$/);
  const problems = [...cycles(files), ...unused(files), ...tracked(/\.md$/).flatMap(deadLinks)];
  if (!existsSync('LICENSE')) problems.push('LICENSE is missing');
  for (const named of UNSAFE_FILES.filter((name) => !existsSync(name))) {
    problems.push(`${named}: named as a file with unsafe code, and is not there`);
  }
  for (const file of files) {
    const text = readFileSync(file, 'utf8');
    const generated = file.includes('/gen/');
    const lines = text.split('\n').length - 1;
    if (!generated && lines > FILE_LINES_MAX)
      problems.push(`${file}: ${lines} lines, the most is ${FILE_LINES_MAX}`);
    if (BANNED_NAMES.test(file)) problems.push(`${file}: named for a role, not for a noun or a verb`);
    if (file.endsWith('.ts') && !generated) problems.push(...checkTypeScript(file, text));
    if (file.endsWith('.rs')) problems.push(...checkUnsafe(file, text));
  }
  return problems;
}
