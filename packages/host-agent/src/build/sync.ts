/** Writes that survive a power cut: the bytes first, then the name. */
import { open } from 'node:fs/promises';

/** Creates `file` with `bytes` on disk; its name is durable only after `syncDirectory`. Fails if it exists. */
export async function writeDurably(file: string, bytes: string | Uint8Array): Promise<void> {
  const handle = await open(file, 'wx', 0o600);
  try {
    await handle.writeFile(bytes);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export async function syncFile(file: string): Promise<void> {
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes the names in a directory durable: those created, renamed or removed in it. */
export const syncDirectory = syncFile;
