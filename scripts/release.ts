/**
 * Packs an installed version into `thaw-VERSION-x86_64.tar.gz`, which runs from wherever it is unpacked:
 *
 *   release.ts VERSION_DIR [--out DIR] [--level 1-9]
 *
 * With it go a list of checksums, in the archive (`thaw install` checks them) and of the archive itself. The same
 * version makes the same archive. Prints the archive's path.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, readdir, readlink, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { parseArgs } from 'node:util';
import { createGzip } from 'node:zlib';
import { isWhole } from '../packages/cli/src/backup/archive.ts';
import { CHECKSUMS } from '../packages/cli/src/install/paths.ts';
import { readVersion } from '../packages/cli/src/install/version.ts';

const ROOT = path.dirname(import.meta.dirname);
/** What a running version writes into its own folder. */
const OWN_FILES = ['cache'];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string', default: path.join(ROOT, 'dist') },
    level: { type: 'string', default: '6' },
  },
});
const [version] = positionals;
if (version === undefined) throw new Error('usage: release.ts VERSION_DIR [--out DIR] [--level 1-9]');
process.stdout.write(
  `${await release(path.resolve(version), path.resolve(values.out), Number(values.level))}\n`,
);

async function release(folder: string, out: string, level: number): Promise<string> {
  const name = `thaw-${(await readVersion(folder)).version}-x86_64`;
  await mkdir(out, { recursive: true });
  await using undo = new AsyncDisposableStack();
  const scratch = await mkdtemp(path.join(out, '.release-'));
  undo.defer(() => rm(scratch, { recursive: true, force: true }));
  // Its mode becomes that of the folder in the archive, which the daemons' users pass through.
  await chmod(scratch, 0o755);
  await copyFile(path.join(ROOT, 'LICENSE'), path.join(scratch, 'LICENSE'));
  await writeFile(
    path.join(scratch, CHECKSUMS),
    await checksums([
      { base: folder, names: await readdir(folder) },
      { base: scratch, names: ['LICENSE'] },
    ]),
  );
  const unfinished = path.join(scratch, 'archive');
  await pack(name, [folder, scratch], unfinished, level);
  const archive = path.join(out, `${name}.tar.gz`);
  const sum = await sha256(unfinished);
  await rename(unfinished, archive);
  await writeFile(`${archive}.sha256`, `${sum}  ${path.basename(archive)}\n`);
  return archive;
}

/** As `sha256sum` writes and checks them. */
async function checksums(parts: { base: string; names: string[] }[]): Promise<string> {
  const lines: string[] = [];
  for (const { base, names } of parts)
    for (const name of names.filter((each) => !OWN_FILES.includes(each)))
      for await (const file of filesAt(path.join(base, name)))
        lines.push(`${await sha256(file)}  ${path.relative(base, file)}`);
  return `${lines.toSorted((a, b) => (a.slice(66) < b.slice(66) ? -1 : 1)).join('\n')}\n`;
}

/** The regular files of a folder, or the file itself. */
async function* filesAt(file: string): AsyncGenerator<string> {
  const entries = await readdir(file, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOTDIR') return undefined;
    throw error;
  });
  if (entries === undefined) {
    if ((await readlink(file).catch(() => undefined)) === undefined) yield file;
    return;
  }
  for (const entry of entries) {
    const each = path.join(file, entry.name);
    if (entry.isDirectory()) yield* filesAt(each);
    else if (entry.isFile()) yield each;
  }
}

async function sha256(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file, { highWaterMark: 1 << 20 }), hash);
  return hash.digest('hex');
}

/** Seconds since 1970; undefined outside of a repository. */
function commitTime(): string | undefined {
  const { status, stdout } = spawnSync('git', ['log', '-1', '--format=%ct'], { cwd: ROOT, encoding: 'utf8' });
  return status === 0 ? stdout.trim() : undefined;
}

/** Everything in one folder called `name`, owned by root, dated with the commit: the same bytes every time. */
async function pack(name: string, folders: string[], archive: string, level: number): Promise<void> {
  const epoch = process.env.SOURCE_DATE_EPOCH ?? commitTime() ?? '0';
  const same = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', `--mtime=@${epoch}`];
  const leave = ['archive', ...OWN_FILES].map((file) => `--exclude=./${file}`);
  const from = folders.flatMap((folder) => ['-C', folder, '.']);
  const flags = ['--create', '--sparse', '--format=gnu', ...same, ...leave, `--transform=s,^\\.,${name},S`];
  const tar = spawn('tar', [...flags, ...from], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
  });
  const ended = once(tar, 'close') as Promise<[number | null]>;
  const [said] = await Promise.all([
    text(tar.stderr),
    pipeline(tar.stdout, createGzip({ level }), createWriteStream(archive)),
  ]);
  const [code] = await ended;
  // A file that has really changed does not match its checksum, and is not installed.
  if (!isWhole(code, said)) throw new Error(`tar ended with ${code}: ${said.trim()}`);
}
