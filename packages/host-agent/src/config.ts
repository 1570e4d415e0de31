/** The host agent's configuration: everything comes from the environment, checked once at the start. */
import os from 'node:os';
import { z } from 'zod';

/** Where an operator puts it. */
export const FIRECRACKER = '/usr/local/bin/firecracker';

const schema = z.object({
  /** Builds, heads, sandboxes' disks; survives a reboot. */
  THAW_DATA: z.string().startsWith('/').default('/var/lib/thaw'),
  /** Sockets and state of what runs now. */
  THAW_RUN: z.string().startsWith('/').default('/run/thaw'),
  /** The installed version this process runs from. */
  THAW_VERSION_DIR: z.string().startsWith('/'),
  /** The interface guests reach the internet by; the default route's unless given. */
  THAW_UPLINK: z.string().min(1).optional(),
  /** Who is asked for the domains of sandboxes that do not say whom, with commas between; asked by the host itself. */
  THAW_DNS_SERVERS: z
    .string()
    .default('')
    .transform((text) => text.split(',').flatMap((server) => server.trim() || []))
    .pipe(z.array(z.ipv4()).max(10)),
  /** Network slots kept ready; 0 keeps none. */
  THAW_SLOT_POOL: z.coerce.number().int().min(0).max(256).default(4),
  /** Slots in which all is ready for a VM to start; 0 keeps none. */
  THAW_PLACES: z.coerce.number().int().min(0).max(64).default(2),
  /** What new VMs run under. */
  THAW_VMM: z.enum(['auto', 'firecracker', 'qemu']).default('auto'),
  THAW_FIRECRACKER_BIN: z.string().startsWith('/').default(FIRECRACKER),
  /** Whether guests of Firecracker have a serial port. */
  THAW_CONSOLE: z.enum(['on', 'off']).default('on'),
  /** Who builds Firecracker's jail: Thaw's keeper, or the jailer that comes with Firecracker. */
  THAW_JAILER: z.enum(['own', 'official']).default('own'),
  THAW_JAILER_BIN: z.string().startsWith('/').default('/usr/local/bin/jailer'),
  THAW_DIRTY: z.enum(['auto', 'scan', 'compare']).default('auto'),
  /** How the memory of sandboxes made of a snapshot comes in. */
  THAW_MEMORY: z.enum(['auto', 'uffd', 'mapped']).default('auto'),
  /** Kept free on the file system of THAW_DATA, besides what running sandboxes need to be paused. */
  THAW_DISK_RESERVE_MB: z.coerce.number().int().min(0).default(512),
  /** What all guests of this host may have together; all of its memory unless given. */
  THAW_MEMORY_MB: z.coerce.number().int().min(128).optional(),
  THAW_UID_BASE: z.coerce.number().int().min(65536).default(700000),
  /** Where control groups are made: `auto`, `off`, or a group that is Thaw's, as a path from the trees' roots. */
  THAW_CGROUP: z
    .string()
    .regex(/^(auto|off|(\/[^/\0]+)+|\/)$/, 'is auto, off or a path like /thaw.slice')
    .refine((value) => !/(^|\/)\.\.?(\/|$)/.test(value), 'has no . or .. in it')
    .default('auto'),
  /** How long a build that nothing refers to is left alone, as another process may still be writing it. */
  THAW_BUILD_GRACE_SEC: z.coerce.number().positive().default(3600),
  /** Booted base templates that are kept, one for each size, so that a create need not boot; 0 keeps none. */
  THAW_KEPT_BOOTS: z.coerce.number().int().min(0).max(256).default(8),
  /** VMs that wait to become sandboxes: `TEMPLATE[/VCPUSxMEMORY_MB[xDISK_MB]]=COUNT`, with commas between. */
  THAW_SPARES: z.string().default('').transform(readSpares),
  THAW_LOG_LEVEL: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
});

/** So many VMs of a template; a size of 0 is the default, or the template's own. */
export interface SpareWish {
  template: string;
  vcpus: number;
  memoryMb: number;
  diskMb: number;
  count: number;
}

const SPARE =
  /^(?<template>[a-z0-9][a-z0-9_-]*)(\/(?<vcpus>\d+)x(?<memory>\d+)(x(?<disk>\d+))?)?=(?<count>\d+)$/;
const SPARES_MAX = 64;

function readSpares(text: string, context: z.RefinementCtx): SpareWish[] {
  const wishes = text
    .split(',')
    .map((wish) => wish.trim())
    .filter((wish) => wish !== '')
    .map((wish) => {
      const { template, vcpus, memory, disk, count } = SPARE.exec(wish)?.groups ?? {};
      if (template === undefined)
        context.addIssue({ code: 'custom', message: `"${wish}" is not like minimal=2 or base/2x1024=1` });
      const number = (digits = '0') => Number(digits);
      const size = { vcpus: number(vcpus), memoryMb: number(memory), diskMb: number(disk) };
      return { template: template ?? '', ...size, count: number(count) };
    });
  if (wishes.reduce((sum, { count }) => sum + count, 0) > SPARES_MAX)
    context.addIssue({ code: 'custom', message: `is at most ${SPARES_MAX} together` });
  return wishes;
}

export type Config = ReturnType<typeof readConfig>;

/** Throws with every wrong variable named. */
export function readConfig(env: NodeJS.ProcessEnv) {
  const parsed = schema.safeParse(env);
  if (!parsed.success) throw new Error(`wrong configuration\n${z.prettifyError(parsed.error)}`);
  const value = parsed.data;
  const totalMb = Math.floor(os.totalmem() / 2 ** 20);
  return {
    data: value.THAW_DATA,
    run: value.THAW_RUN,
    versionDir: value.THAW_VERSION_DIR,
    uplink: value.THAW_UPLINK,
    dnsServers: value.THAW_DNS_SERVERS,
    slotPool: value.THAW_SLOT_POOL,
    places: value.THAW_PLACES,
    vmm: value.THAW_VMM,
    firecracker: value.THAW_FIRECRACKER_BIN,
    console: value.THAW_CONSOLE === 'on',
    jailer: value.THAW_JAILER === 'official' ? value.THAW_JAILER_BIN : undefined,
    tracker: value.THAW_DIRTY,
    backend: value.THAW_MEMORY,
    diskReserveMb: value.THAW_DISK_RESERVE_MB,
    guestMemoryMb: value.THAW_MEMORY_MB ?? totalMb,
    uidBase: value.THAW_UID_BASE,
    cgroup: value.THAW_CGROUP,
    buildGraceMs: value.THAW_BUILD_GRACE_SEC * 1000,
    keptBoots: value.THAW_KEPT_BOOTS,
    spares: value.THAW_SPARES,
    logLevel: value.THAW_LOG_LEVEL,
    vcpusMax: Math.min(32, os.availableParallelism()),
    memoryMbMax: Math.min(totalMb, value.THAW_MEMORY_MB ?? totalMb),
  };
}
