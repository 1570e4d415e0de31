/** What there is in a guest's file system, and changes to it, through the guest agent's Filesystem calls. */
import { ThawError } from '@thaw/api';
import { type EntryInfo, EventType, FileType } from '../gen/filesystem_pb.ts';
import type { FilePath } from './files.ts';
import { type Guest, userHeader } from './guest.ts';
import { refusal } from './refusal.ts';
import { answered, KEEPALIVE_SEC, Silence } from './silence.ts';

export interface Entry {
  name: string;
  type: 'file' | 'directory' | 'other';
  path: string;
  size: bigint;
  mode: number;
  permissions: string;
  owner: string;
  group: string;
  modifiedAtUnixMs: bigint;
  symlinkTarget?: string;
}

export type ChangeType = 'create' | 'write' | 'remove' | 'rename' | 'chmod';

export type WatchEvent = { type: 'start' } | { type: 'change'; change: ChangeType; name: string };

/** A large tree takes its time. */
const REMOVED_WITHIN_MS = 280_000;

const as = (user: string) => userHeader(user === '' ? 'root' : user);

export async function stat(guest: Guest, { path, user }: FilePath, signal: AbortSignal): Promise<Entry> {
  const headers = as(user);
  const answer = await answered(
    guest.patience,
    (options) => guest.filesystem.stat({ path }, { ...options, headers }),
    signal,
  );
  return entry(answer.entry);
}

/** Depth first, each folder before what is in it. */
export async function list(
  guest: Guest,
  { path, user }: FilePath,
  depth: number,
  signal: AbortSignal,
): Promise<Entry[]> {
  const headers = as(user);
  const call = guest.filesystem.listDir;
  const answer = await answered(
    guest.patience,
    (options) => call({ path, depth }, { ...options, headers }),
    signal,
  );
  return answer.entries.map(entry);
}

export async function makeDir(guest: Guest, { path, user }: FilePath, signal: AbortSignal): Promise<Entry> {
  const headers = as(user);
  const call = guest.filesystem.makeDir;
  const answer = await answered(guest.patience, (options) => call({ path }, { ...options, headers }), signal);
  return entry(answer.entry);
}

export async function move(
  guest: Guest,
  source: string,
  { path: destination, user }: FilePath,
  signal: AbortSignal,
): Promise<Entry> {
  const headers = as(user);
  const call = guest.filesystem.move;
  const answer = await answered(
    guest.patience,
    (options) => call({ source, destination }, { ...options, headers }),
    signal,
  );
  return entry(answer.entry);
}

/** A path that does not exist counts as removed. */
export async function remove(guest: Guest, { path, user }: FilePath, signal: AbortSignal): Promise<void> {
  const headers = as(user);
  const call = guest.filesystem.remove;
  const patience = { ...guest.patience, answerMs: REMOVED_WITHIN_MS };
  await answered(patience, (options) => call({ path }, { ...options, headers }), signal);
}

/** First `start`; ends only with its consumer, or by throwing. */
export async function* watch(
  guest: Guest,
  { path, user }: FilePath,
  recursive: boolean,
  signal: AbortSignal,
): AsyncGenerator<WatchEvent> {
  using silence = new Silence(guest.patience, signal);
  const headers = { ...as(user), 'keepalive-ping-interval': String(KEEPALIVE_SEC) };
  try {
    const events = guest.filesystem.watchDir({ path, recursive }, { signal: silence.signal, headers });
    for await (const { event } of silence.listen(events)) {
      if (event.case === 'start') yield { type: 'start' };
      if (event.case !== 'filesystem') continue;
      const change = CHANGES[event.value.type];
      if (change !== undefined) yield { type: 'change', change, name: event.value.name };
    }
  } catch (error) {
    throw refusal(silence.reason(error));
  }
  throw new ThawError('agent_error', 'the guest agent ended the watch');
}

const CHANGES: Partial<Record<EventType, ChangeType>> = {
  [EventType.CREATE]: 'create',
  [EventType.WRITE]: 'write',
  [EventType.REMOVE]: 'remove',
  [EventType.RENAME]: 'rename',
  [EventType.CHMOD]: 'chmod',
};

const TYPES: Partial<Record<FileType, Entry['type']>> = {
  [FileType.FILE]: 'file',
  [FileType.DIRECTORY]: 'directory',
};

function entry(info: EntryInfo | undefined): Entry {
  if (info === undefined) throw new ThawError('agent_error', 'the guest agent gave an incomplete answer');
  const { name, path, mode, permissions, owner, group, modifiedTime, symlinkTarget } = info;
  return {
    name,
    type: TYPES[info.type] ?? 'other',
    path,
    // Negative sizes and years beyond a date's range are a guest's lies.
    size: info.size < 0n ? 0n : info.size,
    mode,
    permissions,
    owner,
    group,
    modifiedAtUnixMs:
      (modifiedTime?.seconds ?? 0n) * 1000n + BigInt(Math.trunc((modifiedTime?.nanos ?? 0) / 1e6)),
    ...(symlinkTarget !== undefined && { symlinkTarget }),
  };
}
