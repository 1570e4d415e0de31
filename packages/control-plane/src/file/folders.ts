/** Looks at what files there are, changes where they are. */
import type { FileEntry, ListDir, MakeDir, MoveFile, RemoveFile, StatFile } from '@thaw/api';
import type { FileEntry as HostEntry } from '@thaw/api/rpc';
import type { Plane } from '../plane.ts';
import { enter } from '../sandbox/enter.ts';

export async function statFile(plane: Plane, teamId: string, id: string, wish: StatFile): Promise<FileEntry> {
  using _ = await enter(plane, teamId, id);
  return entry(await plane.host.statFile({ sandboxId: id, ...wish }));
}

export async function listDir(plane: Plane, teamId: string, id: string, wish: ListDir): Promise<FileEntry[]> {
  using _ = await enter(plane, teamId, id);
  return (await plane.host.listDir({ sandboxId: id, ...wish })).map(entry);
}

export async function makeDir(plane: Plane, teamId: string, id: string, wish: MakeDir): Promise<FileEntry> {
  using _ = await enter(plane, teamId, id);
  return entry(await plane.host.makeDir({ sandboxId: id, ...wish }));
}

export async function moveFile(plane: Plane, teamId: string, id: string, wish: MoveFile): Promise<FileEntry> {
  using _ = await enter(plane, teamId, id);
  return entry(await plane.host.moveFile({ sandboxId: id, ...wish }));
}

export async function removeFile(plane: Plane, teamId: string, id: string, wish: RemoveFile): Promise<void> {
  using _ = await enter(plane, teamId, id);
  await plane.host.removeFile({ sandboxId: id, ...wish });
}

/** The last moment that a date can be. */
const TIME_MAX_MS = 8_640_000_000_000_000;

function entry(from: HostEntry): FileEntry {
  const { name, path, mode, permissions, owner, group, symlinkTarget } = from;
  const modifiedMs = Math.min(Math.max(Number(from.modifiedAtUnixMs), -TIME_MAX_MS), TIME_MAX_MS);
  return {
    name,
    type: from.type === 'file' || from.type === 'directory' ? from.type : 'other',
    path,
    size: Number(from.size),
    mode,
    permissions,
    owner,
    group,
    modified_at: new Date(modifiedMs).toISOString(),
    ...(symlinkTarget !== undefined && { symlink_target: symlinkTarget }),
  };
}
