/** How a VM comes from a build, and in which place. */
import type { Build, Image } from '../build/build.ts';
import type { Host } from '../host.ts';
import type { Steps } from '../os/step.ts';
import { type Choice, chooseBackend } from '../vmm/backend.ts';
import type { VmmKit } from '../vmm/vmm.ts';
import { chainOf } from './machine.ts';
import type { Place, Wait } from './place.ts';
import type { SandboxRecord } from './record.ts';

const MIB = 2 ** 20;

export type How = { kind: 'boot' } | ({ kind: 'restore'; kit: VmmKit; memory: Image } & Choice);

/** The VMM that would be of use. */
export function waitOf(how: How, record: SandboxRecord, build: Build): Wait | undefined {
  if (how.kind === 'boot' || grows(record, build)) return undefined;
  const { vcpus, memoryMb, diskMb } = record;
  return { vcpus, memoryMb, diskMb, ...(how.backend === 'mapped' && { build: build.id }) };
}

/** One that was made ahead, if there is one, about to fit `record`. `again`: others are likely to start from this build. */
export async function takePlace(
  host: Host,
  steps: Steps,
  verb: string,
  { record, build, again = false }: { record: SandboxRecord; build: Build; again?: boolean | undefined },
): Promise<Place | undefined> {
  const how = await howOf(host, verb, build);
  const wait = waitOf(how, record, build);
  if (again && wait?.build !== undefined && build.memory !== null)
    host.places.remember(wait, chainOf(build.memory));
  const place = host.places.take(how.kind === 'boot' ? host.vmm.info.vmm : how.kit.info.vmm, wait);
  // Who starts in it waits for that.
  place?.fit(host, steps, verb, record).catch(() => {});
  return place;
}

/** Its disk is larger than the build's. */
export function grows({ diskMb }: SandboxRecord, { disk }: Build): boolean {
  return disk.header.size < diskMb * MIB;
}

/** Booted without memory, else restored. */
export async function howOf(host: Host, verb: string, { memory, manifest }: Build): Promise<How> {
  if (memory === null || manifest.machine === null) return { kind: 'boot' };
  const kit = await host.kitOf(manifest.machine.vmm);
  const clone = verb !== 'resume';
  return { kind: 'restore', kit, memory, ...chooseBackend(host.config.backend, { clone, memory, kit }) };
}
