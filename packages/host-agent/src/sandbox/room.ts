/** Whether the disk has room for another sandbox: those that run must be able to pause, and a pause may write all memory. */
import { statfs } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import type { Host } from '../host.ts';

const MIB = 2 ** 20;

export interface DiskRoom {
  freeBytes: number;
  /** What pausing all running sandboxes may write, and what is kept free besides. */
  reservedBytes: number;
}

export async function diskRoom(host: Host): Promise<DiskRoom> {
  const { bavail, bsize } = await statfs(host.config.data);
  const running = host.registry
    .all()
    .filter(({ state }) => state.status !== 'paused' && state.status !== 'error');
  const memoryMb = running.reduce((sum, { record }) => sum + record.memoryMb, 0);
  return { freeBytes: bavail * bsize, reservedBytes: (memoryMb + host.config.diskReserveMb) * MIB };
}

/** Throws `exhausted` when a pause of what runs or is being made could fail for want of space. */
export async function checkDiskRoom(host: Host): Promise<void> {
  const { freeBytes, reservedBytes } = await diskRoom(host);
  if (freeBytes >= reservedBytes) return;
  const mib = (bytes: number) => Math.floor(bytes / MIB);
  throw new ThawError(
    'exhausted',
    `the disk of this host is too full: ${mib(freeBytes)} MiB are free, and with this sandbox ` +
      `${mib(reservedBytes)} MiB must be, so that everything that runs can be paused`,
  );
}
