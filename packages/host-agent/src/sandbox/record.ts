/** What the host keeps of a sandbox besides its head: a small file, replaced whole. */
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import type { Build } from '../build/build.ts';
import type { Facts } from '../build/head.ts';
import { egressSchema, OPEN_EGRESS } from '../network/egress.ts';
import type { Steps } from '../os/step.ts';
import { SandboxPaths, sandboxesDir } from './paths.ts';

const schema = z.object({
  id: z.string().regex(/^[a-z0-9]{1,40}$/),
  template: z.string(),
  vcpus: z.number().int().positive(),
  memoryMb: z.number().int().positive(),
  diskMb: z.number().int().positive(),
  timeoutSec: z.number().int(),
  env: z.record(z.string(), z.string()),
  egress: egressSchema.default(OPEN_EGRESS),
  /** Empty: the guest agent asks for none. */
  accessToken: z.string(),
  /** Of calls that name no user. */
  defaultUser: z.string().default('root'),
  defaultWorkdir: z.string().default('/root'),
  machineId: z.string().regex(/^[0-9a-f]{32}$/),
  /** Starts of the VM so far: the guest applies an identity once for each. */
  counter: z.number().int().nonnegative(),
  /** The name of its VM's run folder and control group, if it was a spare's; until its next start. */
  vm: z
    .string()
    .regex(/^[a-z0-9]{1,40}$/)
    .optional(),
  /** Seconds since 1970. */
  createdAt: z.number().int(),
  lastActiveAt: z.number().int(),
  /** Set while the VM is meant to run: after a crash of the host this sandbox did not pause. */
  started: z.boolean(),
  errorReason: z.string().optional(),
});

export type SandboxRecord = z.infer<typeof schema>;

/** The name of its VM on this host. */
export function vmOf({ id, vm }: SandboxRecord): string {
  return vm ?? id;
}

/** Of the head that a pause commits: it says which run of the VM it ended. */
export function pausedFacts(record: SandboxRecord): Facts {
  return { paused: record.counter };
}

/** Whether the build of a head is a sandbox's own, and not what the sandbox was made of. */
export function isOwn({ memory }: Build, facts: Facts): boolean {
  return memory !== null || facts.paused !== undefined;
}

/** Whether the head was committed by a pause of the run that the record tells of. */
export function isPaused(record: SandboxRecord, facts: Facts): boolean {
  return !record.started || facts.paused === record.counter;
}

/** Replaces the record durably. */
export async function writeRecord(
  roots: { data: string; run: string },
  record: SandboxRecord,
  steps: Steps,
  label: string,
): Promise<void> {
  const paths = new SandboxPaths(roots, record.id);
  await steps.run(label, async () => {
    await mkdir(paths.data, { recursive: true, mode: 0o700 });
    const temporary = `${paths.record}.new`;
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(JSON.stringify(record));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, paths.record);
  });
}

/** Every record on this host; a folder without a readable one is reported by `onDamaged` and passed over. */
export async function readRecords(
  roots: { data: string; run: string },
  onDamaged: (id: string, error: unknown) => void,
): Promise<SandboxRecord[]> {
  const names = await readdir(sandboxesDir(roots.data)).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  const records: SandboxRecord[] = [];
  for (const id of names) {
    try {
      records.push(schema.parse(JSON.parse(await readFile(new SandboxPaths(roots, id).record, 'utf8'))));
    } catch (error) {
      onDamaged(id, error);
    }
  }
  return records;
}

/** Removes everything a sandbox has on the disk of this host. */
export async function removeSandboxFiles(
  roots: { data: string; run: string },
  id: string,
  steps: Steps,
  label: string,
): Promise<void> {
  const paths = new SandboxPaths(roots, id);
  await steps.run(label, async () => {
    for (const directory of [paths.run, paths.data]) {
      if (path.basename(directory) !== id) throw new Error(`not a sandbox's folder: ${directory}`);
      await rm(directory, { recursive: true, force: true });
    }
  });
}
