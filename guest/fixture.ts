// Where tests find the built guest.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Image } from './image.ts';
import type { Initramfs } from './initramfs.ts';
import type { Kernel } from './kernel.ts';
import type { ImageName } from './recipe.ts';

export interface Guest {
  kernel: Pick<Kernel, 'file' | 'sha256' | 'version'>;
  initramfs: Initramfs;
  images: Partial<Record<ImageName, Pick<Image, 'file' | 'size_bytes' | 'id'>>>;
}

export const guestDir = join(process.env.THAW_CACHE ?? '/var/cache/thaw', 'guest');

/** A reason to skip, or false. */
export const notBuilt = existsSync(join(guestDir, 'guest.json'))
  ? false
  : `no guest in ${guestDir}: run guest/build.sh`;

export async function builtGuest(): Promise<Guest> {
  return JSON.parse(await readFile(join(guestDir, 'guest.json'), 'utf8'));
}
