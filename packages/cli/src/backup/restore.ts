/**
 * `thaw restore`: a backup into an empty data folder. Whatever fails, folder and database are as empty as before; a
 * restore that is killed leaves a mark by which `thaw up` refuses the folder.
 */
import { createReadStream } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import type { Config } from '../config.ts';
import type { Context } from '../context.ts';
import { printJson, printLine } from '../print.ts';
import type { UpPaths } from '../up/paths.ts';
import { findUser } from '../up/user.ts';
import { extractArchive, verifyArchive } from './archive.ts';
import { installedPaths, Staged, syncFolder } from './backup.ts';
import { openDatabase } from './database.ts';
import { runProgram } from './program.ts';

/** What of an archive belongs into a data folder. */
const DATA = ['boot', 'builds', 'sandboxes', 'templates', 'identity', 'key'];

export async function restore(context: Context, config: Config, file: string): Promise<void> {
  const { progress, signal } = context;
  const paths = installedPaths(config);
  const source = path.resolve(file);
  await requireEmpty(paths.data);
  const head = await progress.step('checksum', () => verifyArchive(source, signal));

  await using undo = new AsyncDisposableStack();
  const made = await mkdir(paths.data, { recursive: true, mode: 0o711 });
  if (made !== undefined) undo.defer(() => rm(made, { recursive: true, force: true }));
  // With the mark no `thaw up` starts here; one that did before has left something.
  await mkdir(paths.restoring, { mode: 0o700 });
  undo.defer(() => rm(paths.restoring, { recursive: true, force: true }));
  await requireEmpty(paths.data, path.basename(paths.restoring));
  undo.defer(() => clear(paths));
  await progress.step('files', () => extractArchive(source, paths.restoring, signal));
  const saved = Staged.parse(JSON.parse(await readFile(path.join(paths.restoring, 'saved.json'), 'utf8')));
  for (const name of await readdir(paths.restoring))
    if (DATA.includes(name)) await rename(path.join(paths.restoring, name), path.join(paths.data, name));
  await syncFolder(paths.data);
  await progress.step('database', () => load(config, paths, saved, signal));
  undo.move();
  await rm(paths.restoring, { recursive: true });
  await syncFolder(paths.data);

  const { sandboxes, templates, left_out } = saved;
  if (context.json)
    return printJson({ data: paths.data, created_at: head.created_at, sandboxes, templates, left_out });
  for (const { kind, id, reason } of left_out)
    progress.say(`was not in the backup: ${kind} ${id}: ${reason}`);
  await printLine(
    `${paths.data}: ${sandboxes.length} sandboxes and ${templates.length} templates as of ${head.created_at}`,
  );
}

async function load(config: Config, paths: UpPaths, saved: Staged, signal: AbortSignal): Promise<void> {
  const user = await findUser('thaw');
  await using database = await openDatabase(config, paths, user, signal);
  const argv = [paths.node, paths.program('control-plane'), 'load'] as const;
  const dump = path.join(paths.restoring, 'database.jsonl');
  async function* input() {
    yield `${JSON.stringify({ sandboxes: saved.sandboxes })}\n`;
    yield* createReadStream(dump) as AsyncIterable<Buffer>;
  }
  await runProgram(argv, { user, env: { THAW_DATABASE_URL: database.url }, input: input(), signal });
}

async function requireEmpty(data: string, ...besides: string[]): Promise<void> {
  const names = await readdir(data).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  // A file system of its own has this one from the beginning.
  const expected = ['lost+found', ...besides];
  if (names.every((name) => expected.includes(name))) return;
  throw new ThawError('conflict', `${data} is not empty: a restore goes into an empty data folder only`);
}

/** What the restore has put into a folder that was empty before. */
async function clear({ data, cluster }: UpPaths): Promise<void> {
  const database = path.basename(cluster);
  for (const name of await readdir(data))
    if (DATA.includes(name) || name === database || name.startsWith(`${database}.new-`))
      await rm(path.join(data, name), { recursive: true, force: true });
}
