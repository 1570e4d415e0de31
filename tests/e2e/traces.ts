/** What Thaw has on the host now, read from the kernel: for comparing before and after. */
import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import path from 'node:path';
import { run } from '../../packages/host-agent/src/os/run.ts';

/** Counts, so that two moments compare by value. Slots are counted, not named: each comes back under another index. */
export interface Traces {
  /** Processes by program, the test's own left out. */
  processes: Record<string, number>;
  mounts: number;
  namespaces: number;
  links: number;
  /** Tables, and the elements of all their sets and maps. */
  nftTables: number;
  nftElements: number;
  routes: number;
  rules: number;
  /** Claims of addresses by instances. */
  claims: number;
  /** Control groups of instances and their sandboxes, in all trees. */
  cgroups: number;
  /** Unix sockets in the run folder, relative to it; whatever sandboxes there are have one name here. */
  sockets: string[];
  /** Folders of sandboxes in the run folder. */
  sandboxes: string[];
}

const CLAIMS = '/run/thaw.claims';
const CGROUP_TREES = '/sys/fs/cgroup';

export async function traces(runDir: string): Promise<Traces> {
  const [processes, mounts, namespaces, links, nft, routes, rules, claims, cgroups, sockets, sandboxes] =
    await Promise.all([
      programs(),
      readFile('/proc/self/mountinfo', 'utf8'),
      names('/run/netns'),
      ipJson('link'),
      nftables(),
      ipJson('-4', 'route', 'show', 'table', 'all'),
      ipJson('-4', 'rule'),
      names(CLAIMS),
      controlGroups(),
      socketsBelow(runDir).then(unnamed),
      names(path.join(runDir, 'sandboxes')).then(unnamed),
    ]);
  return {
    processes,
    // Those of namespaces are counted below; other people's come and go.
    mounts: mounts.split('\n').filter((line) => line !== '' && !line.includes(' - nsfs ')).length,
    namespaces: namespaces.length,
    links: links.length,
    nftTables: nft.tables,
    nftElements: nft.elements,
    routes: routes.length,
    rules: rules.length,
    claims: claims.filter((name) => name.endsWith('.json')).length,
    cgroups,
    sockets,
    sandboxes,
  };
}

/** Open descriptors of a process. */
export async function descriptors(pid: number): Promise<number> {
  return (await names(`/proc/${pid}/fd`)).length;
}

/** What they lead to, for the message of a test that found too many. */
export async function openFiles(pid: number): Promise<string[]> {
  const folder = `/proc/${pid}/fd`;
  const targets = (await names(folder)).map((fd) => readlink(`${folder}/${fd}`).catch(() => 'closed'));
  return (await Promise.all(targets)).sort();
}

/** Bytes that everything below a folder takes on disk, but for what is below `leftOut`. */
export async function allocatedBelow(folder: string, leftOut?: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (leftOut !== undefined && `${entry.parentPath}/`.startsWith(`${leftOut}/`)) continue;
    if (entry.isFile()) bytes += (await stat(path.join(entry.parentPath, entry.name))).blocks * 512;
  }
  return bytes;
}

export function isRunning(pid: number): Promise<boolean> {
  return readlink(`/proc/${pid}/exe`).then(
    () => true,
    () => false,
  );
}

export interface Process {
  pid: number;
  parent: number;
  program: string;
  argv: string[];
}

/** Every process of this host that lives, zombies left out. */
export async function allProcesses(): Promise<Process[]> {
  const found: Process[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const exe = await readlink(`/proc/${name}/exe`);
      const stats = await readFile(`/proc/${name}/stat`, 'utf8');
      const argv = (await readFile(`/proc/${name}/cmdline`, 'utf8')).split('\0');
      const parent = Number(stats.slice(stats.lastIndexOf(')') + 2).split(' ')[1]);
      found.push({ pid: Number(name), parent, program: path.basename(exe), argv });
    } catch {
      // It ended meanwhile, or is a zombie.
    }
  }
  return found;
}

/** The descendants of this process and orphans, PostgreSQL's sessions and short-lived programs of this test left out. */
async function programs(): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { pid, parent, program, argv } of await allProcesses()) {
    if (pid === 1 || pid === process.pid || program === 'ip' || program === 'nft') continue;
    if (program === 'postgres' && argv[0]?.startsWith('postgres:')) continue;
    if (program === 'node' && parent === process.pid && argv[1] === process.argv[1]) continue;
    const main = argv.find((argument) => argument.endsWith('/main.ts'));
    const name = main === undefined ? program : path.basename(path.resolve(main, '../..'));
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}

async function nftables(): Promise<{ tables: number; elements: number }> {
  const { stdout } = await run(['nft', '-j', 'list', 'ruleset']);
  const { nftables } = JSON.parse(stdout) as { nftables: NftObject[] };
  let tables = 0;
  let elements = 0;
  for (const object of nftables) {
    if (object.table !== undefined) tables++;
    elements += (object.set?.elem ?? object.map?.elem ?? []).length;
  }
  return { tables, elements };
}

/** The instances of this test's own: the tree of groups is the machine's, and others come and go in it. */
const instances = new Set<string>();

async function cgroupsBelow(tree: string): Promise<number> {
  const own = (await names(tree)).filter((name) => instances.has(name));
  const groups = await Promise.all(
    own.map((name) => readdir(path.join(tree, name), { withFileTypes: true }).catch(ifMissing([]))),
  );
  // An instance's own group is empty without sandboxes, and then another instance may take it away.
  return groups.reduce((sum, entries) => sum + entries.filter((entry) => entry.isDirectory()).length, 0);
}

/** Version 2 has its tree in the folder itself or, beside version 1, in one of its folders. */
async function controlGroups(): Promise<number> {
  const trees = [CGROUP_TREES, ...(await names(CGROUP_TREES)).map((name) => path.join(CGROUP_TREES, name))];
  for (const name of await names(CLAIMS))
    if (name.endsWith('.json')) instances.add(`thaw-${path.basename(name, '.json')}`);
  const counts = await Promise.all(trees.map(cgroupsBelow));
  return counts.reduce((sum, count) => sum + count, 0);
}

interface NftObject {
  table?: object;
  set?: { elem?: unknown[] };
  map?: { elem?: unknown[] };
}

async function ipJson(...args: string[]): Promise<unknown[]> {
  const { stdout } = await run(['ip', '-json', ...args]);
  return JSON.parse(stdout || '[]');
}

async function socketsBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(ifMissing([]));
  return entries
    .filter((entry) => entry.isSocket())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)))
    .toSorted();
}

function unnamed(all: string[]): string[] {
  return all.map((name) => name.replace(/\bsb[a-z0-9]{20}\b/, 'sb')).toSorted();
}

function names(folder: string): Promise<string[]> {
  return readdir(folder).catch(ifMissing([]));
}

function ifMissing<T>(value: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return value;
    throw error;
  };
}
