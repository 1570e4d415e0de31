/** Moves files in and out of a sandbox. */
import { ThawError } from '@thaw/api';
import * as guest from '../guest/files.ts';
import type { Host } from '../host.ts';

export interface FilePlace {
  sandboxId: string;
  /** Absolute, or relative to the user's home. */
  path: string;
  user: string;
}

function checked(place: FilePlace): void {
  if (place.path === '' || place.path.includes('\0'))
    throw new ThawError('invalid_request', 'path is empty or not a path');
}

/** The file's bytes; a missing file throws `not_found` before the first. */
export function readFile(host: Host, place: FilePlace): AsyncGenerator<Uint8Array> {
  checked(place);
  return host.registry
    .get(place.sandboxId)
    .callStream((machine) => guest.read(machine.guest, place.path, place.user));
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
    .call((machine) => guest.write(machine.guest, place.path, place.user, chunks));
}
