/** Moves files in and out of a sandbox, and looks after its folders. */
import { ThawError } from '@thaw/api';
import * as guest from '../guest/files.ts';
import * as folders from '../guest/folders.ts';
import type { Host } from '../host.ts';

export interface FilePlace extends guest.FilePath {
  sandboxId: string;
}

const PATH_BYTES_MAX = 4096;

function checkedPath(path: string): string {
  if (path === '' || path.includes('\0') || Buffer.byteLength(path) >= PATH_BYTES_MAX)
    throw new ThawError('invalid_request', 'path is empty, too long or not a path');
  return path;
}

function checked(place: FilePlace): FilePlace {
  checkedPath(place.path);
  return place;
}

/** The file's bytes; a missing file throws `not_found` before the first. */
export function readFile(host: Host, place: FilePlace): AsyncGenerator<Uint8Array> {
  checked(place);
  return host.registry
    .get(place.sandboxId)
    .callStream((machine, stopping) => guest.read(machine.guest, place, stopping));
}

/** Replaces the file's content. When `chunks` throw, the write is reported as failed. */
export async function writeFile(
  host: Host,
  place: FilePlace,
  chunks: AsyncIterable<Uint8Array>,
): Promise<void> {
  checked(place);
  await host.registry
    .get(place.sandboxId)
    .call((machine, stopping) => guest.write(machine.guest, place, chunks, stopping));
}

export function statFile(host: Host, place: FilePlace): Promise<folders.Entry> {
  checked(place);
  return host.registry
    .get(place.sandboxId)
    .call((machine, stopping) => folders.stat(machine.guest, place, stopping));
}

export function listDir(host: Host, place: FilePlace & { depth: number }): Promise<folders.Entry[]> {
  checked(place);
  return host.registry
    .get(place.sandboxId)
    .call((machine, stopping) => folders.list(machine.guest, place, place.depth, stopping));
}

export function makeDir(host: Host, place: FilePlace): Promise<folders.Entry> {
  checked(place);
  return host.registry
    .get(place.sandboxId)
    .call((machine, stopping) => folders.makeDir(machine.guest, place, stopping));
}

/** To `place`, whatever was there. */
export function moveFile(host: Host, source: string, place: FilePlace): Promise<folders.Entry> {
  checkedPath(source);
  checked(place);
  return host.registry
    .get(place.sandboxId)
    .call((machine, stopping) => folders.move(machine.guest, source, place, stopping));
}

/** A tree; a path that does not exist is success. */
export function removeFile(host: Host, place: FilePlace): Promise<void> {
  checked(place);
  return host.registry
    .get(place.sandboxId)
    .call((machine, stopping) => folders.remove(machine.guest, place, stopping));
}

/** What changes in a folder from the `start` event on, until `signal` aborts. */
export function watchDir(
  host: Host,
  place: FilePlace & { recursive: boolean },
  signal: AbortSignal,
): AsyncGenerator<folders.WatchEvent> {
  checked(place);
  return host.registry
    .get(place.sandboxId)
    .callStream((machine, stopping) =>
      folders.watch(machine.guest, place, place.recursive, AbortSignal.any([signal, stopping])),
    );
}
