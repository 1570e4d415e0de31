/**
 * Whether this host has room for another VM: guests are not promised more memory together than they may have, and those
 * that run must be able to pause, which may write all of their memory.
 */
import { readFile } from 'node:fs/promises';
import { ThawError } from '@thaw/api';
import type { Host } from '../host.ts';
import { freeBytes } from '../os/free-bytes.ts';

const MIB = 2 ** 20;

export interface DiskRoom {
  freeBytes: number;
  /** What pausing all running sandboxes may write, and what is kept free besides. */
  reservedBytes: number;
}

export async function diskRoom(host: Host): Promise<DiskRoom> {
  const reservedMb = promisedMemoryMb(host) + host.config.diskReserveMb;
  return { freeBytes: await freeBytes(host.config.data), reservedBytes: reservedMb * MIB };
}

/**
 * Throws `exhausted` when what runs, with what is being made or resumed, is more than this host has room for. Spares give
 * way.
 */
export async function checkRoom(host: Host, memoryMb: number): Promise<void> {
  try {
    await checkRoomBeside(host, memoryMb);
  } catch (error) {
    if (!(await host.spares.drop())) throw error;
    await checkRoomBeside(host, memoryMb);
  }
}

/** The same with the spares that there are. */
export async function checkRoomBeside(host: Host, memoryMb: number): Promise<void> {
  const { guestMemoryMb } = host.config;
  const promisedMb = promisedMemoryMb(host);
  if (promisedMb > guestMemoryMb) {
    throw new ThawError(
      'exhausted',
      `the memory of this host is taken: its guests may have ${guestMemoryMb} MiB together, and with this ` +
        `sandbox they would have ${promisedMb}`,
    );
  }
  const availableMb = await availableMemoryMb();
  if (availableMb < memoryMb) {
    throw new ThawError(
      'exhausted',
      `the memory of this host is taken: ${availableMb} MiB are available, this sandbox may need ${memoryMb}`,
    );
  }
  await checkDiskRoom(host);
}

/** What the guests of all VMs may use, spares and those being made included. */
function promisedMemoryMb(host: Host): number {
  const running = host.registry
    .all()
    .filter(({ state }) => state.status !== 'paused' && state.status !== 'error');
  return running.reduce((sum, { record }) => sum + record.memoryMb, host.spares.memoryMb);
}

/** What the kernel can give without taking it from somebody, swap included. */
async function availableMemoryMb(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8');
  const kib = (name: string) => Number(text.match(new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm'))?.[1] ?? 0);
  return Math.floor((kib('MemAvailable') + kib('SwapFree')) / 1024);
}

async function checkDiskRoom(host: Host): Promise<void> {
  const { freeBytes, reservedBytes } = await diskRoom(host);
  if (freeBytes >= reservedBytes) return;
  const mib = (bytes: number) => Math.floor(bytes / MIB);
  throw new ThawError(
    'exhausted',
    `the disk of this host is too full: ${mib(freeBytes)} MiB are free, and with this sandbox ` +
      `${mib(reservedBytes)} MiB must be, so that everything that runs can be paused`,
  );
}
