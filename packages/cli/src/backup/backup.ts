/**
 * `thaw backup`: database, heads and builds together, whether Thaw runs or not. The database is taken first, at one
 * instant; then each of its sandboxes at its last build, so a running one is saved as of its last pause or snapshot.
 */
import { createReadStream } from 'node:fs';
import {
  access,
  copyFile,
  link,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  writeFile,
} from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { ThawError } from '@thaw/api';
import { z } from 'zod';
import type { Config } from '../config.ts';
import type { Context } from '../context.ts';
import { bytes, printJson, printLine } from '../print.ts';
import { keyFile, UpPaths } from '../up/paths.ts';
import { findUser } from '../up/user.ts';
import { writeArchive } from './archive.ts';
import { openDatabase } from './database.ts';
import { runProgram } from './program.ts';

const STAGE = '.backup-';

export const Staged = z.object({
  sandboxes: z.array(z.object({ id: z.string(), running: z.boolean() })),
  templates: z.array(z.string()),
  left_out: z.array(z.object({ kind: z.string(), id: z.string(), reason: z.string() })),
});
export type Staged = z.infer<typeof Staged>;

const Line = z.object({ table: z.string().optional(), rows: z.array(z.unknown()).default([]) });
const HostRow = z.object({ identity: z.string() });
const SandboxRow = z.object({ id: z.string(), status: z.string() });

/** Only root reads and writes the data folder. */
export function installedPaths(config: Config): UpPaths {
  if (process.getuid?.() !== 0)
    throw new ThawError('forbidden', 'only root may read and write the data folder');
  if (config.version === undefined)
    throw new ThawError('invalid_state', 'this runs from an installed version: make setup');
  return new UpPaths({ data: path.resolve(config.data), run: config.run, version: config.version });
}

export async function backup(context: Context, config: Config, file: string): Promise<void> {
  const { progress, signal } = context;
  const paths = installedPaths(config);
  const target = path.resolve(file);
  const taken = await exists(target);
  if (taken) throw new ThawError('already_exists', `${file} exists: a backup overwrites nothing`);
  if (!(await exists(path.join(paths.data, 'builds'))))
    throw new ThawError('not_found', `there is no Thaw in ${paths.data}`);

  await using undo = new AsyncDisposableStack();
  await removeStale(paths.data);
  const stage = await mkdtemp(path.join(paths.data, `${STAGE}${process.pid}-`));
  undo.defer(() => rm(stage, { recursive: true, force: true }));
  const dump = path.join(stage, 'database.jsonl');
  await progress.step('database', () => dumpTo(dump, config, paths, signal));
  const staged = await progress.step('builds', async () => {
    const argv = [paths.node, paths.program('host-agent/backup'), paths.data, stage] as const;
    const input = [JSON.stringify(await sandboxesOf(dump, await identityOf(paths)))];
    return Staged.parse(JSON.parse(await runProgram(argv, { input, signal })));
  });
  await writeFile(path.join(stage, 'saved.json'), JSON.stringify(staged), { mode: 0o600 });
  for (const name of [keyFile(paths.data), paths.identity])
    if (await exists(name)) await copyFile(name, path.join(stage, path.basename(name)));

  const partial = `${target}.partial-${process.pid}`;
  undo.defer(() => rm(partial, { force: true }));
  const head = await progress.step('archive', () => writeArchive(partial, stage, signal));
  await nameWithoutReplacing(partial, target);
  await syncFolder(path.dirname(target));
  await tell(context, file, { ...head, ...staged });
}

async function dumpTo(file: string, config: Config, paths: UpPaths, signal: AbortSignal): Promise<void> {
  const user = await findUser('thaw');
  if (config.databaseUrl === undefined && !(await exists(paths.cluster)))
    throw new ThawError('not_found', `no database is in ${paths.data}: set DATABASE_URL as for \`thaw up\``);
  await using database = await openDatabase(config, paths, user, signal);
  await using output = await open(file, 'wx', 0o600);
  const argv = [paths.node, paths.program('control-plane'), 'dump'] as const;
  await runProgram(argv, { user, env: { THAW_DATABASE_URL: database.url }, input: [], output, signal });
}

/** The sandboxes of a dump that are, or will be, more than history. Throws `conflict` if it is not of this data folder. */
async function sandboxesOf(file: string, identity: string): Promise<string[]> {
  const ids: string[] = [];
  for await (const line of createInterface({ input: createReadStream(file) })) {
    const { table, rows } = Line.parse(JSON.parse(line));
    if (table === 'hosts' && rows.some((row) => HostRow.parse(row).identity !== identity))
      throw new ThawError('conflict', 'the database belongs to another data folder: check DATABASE_URL');
    if (table !== 'sandboxes') continue;
    const alive = rows
      .map((row) => SandboxRow.parse(row))
      .filter(({ status }) => status !== 'stopped' && status !== 'stopping');
    ids.push(...alive.map(({ id }) => id));
  }
  return ids;
}

async function tell(
  context: Context,
  file: string,
  made: Staged & { bytes: number; sha256: string },
): Promise<void> {
  if (context.json) return printJson({ file, ...made });
  for (const { kind, id, reason } of made.left_out)
    context.progress.say(`not in the backup: ${kind} ${id}: ${reason}`);
  const running = made.sandboxes.filter((sandbox) => sandbox.running).length;
  const asOf = running === 0 ? '' : ` (${running} of them running: saved as of their last pause or snapshot)`;
  await printLine(
    `${file}: ${made.sandboxes.length} sandboxes${asOf}, ${made.templates.length} templates, ${bytes(made.bytes)}`,
  );
}

async function identityOf({ identity }: UpPaths): Promise<string> {
  return (await readFile(identity, 'utf8').catch(() => '')).trim();
}

/** Fails if somebody made the file meanwhile; where there are no links, it is only looked whether somebody did. */
async function nameWithoutReplacing(from: string, to: string): Promise<void> {
  await link(from, to).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code === 'EEXIST' || (await exists(to)))
      throw new ThawError('already_exists', `${to} exists: a backup overwrites nothing`, { cause: error });
    await rename(from, to);
  });
}

/** What backups that were killed have left. */
async function removeStale(data: string): Promise<void> {
  for (const name of await readdir(data)) {
    const pid = name.match(`^${STAGE.replace('.', '\\.')}(\\d+)-`)?.[1];
    if (pid === undefined || (await exists(`/proc/${pid}/stat`))) continue;
    await rm(path.join(data, name), { recursive: true, force: true });
  }
}

export async function syncFolder(folder: string): Promise<void> {
  await using handle = await open(folder, 'r');
  await handle.sync();
}

function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
