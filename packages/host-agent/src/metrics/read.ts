/** The figures as text: those that are counted as things happen, and those that are looked up when somebody asks. */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { BuildId } from '@thaw/snapshot';
import { markBuilds } from '../build/mark.ts';
import { namedBuild } from '../build/paths.ts';
import type { Host } from '../host.ts';
import { sandboxesDir } from '../sandbox/paths.ts';
import { vmOf } from '../sandbox/record.ts';
import { builds, orphans, places, registry, sandboxes, slots, spares, storedBytes } from './metrics.ts';
import { countPages } from './paging.ts';

const STATUSES = ['running', 'paused', 'pending', 'pausing', 'resuming', 'snapshotting', 'stopping', 'error'];

/** Builds never change, so each is measured once. */
const measured = new Map<BuildId, number>();

/** In Prometheus' text format. */
export async function readMetrics(host: Host): Promise<string> {
  const all = host.registry.all();
  for (const status of STATUSES)
    sandboxes.set({ status }, all.filter(({ state }) => state.status === status).length);
  for (const [state, count] of Object.entries(host.slots.counts())) slots.set({ state }, count);
  for (const [state, count] of Object.entries(host.places.counts())) places.set({ state }, count);
  for (const [state, count] of Object.entries(host.spares.counts())) spares.set({ state }, count);
  orphans.set({ kind: 'slot' }, host.slots.counts().aside);
  const machines = all.flatMap(({ state }) => (state.status === 'running' ? [state.machine] : []));
  await Promise.all([
    countPages(machines.map(({ vm, memoryBase }) => ({ memory: vm.memory, build: memoryBase }))),
    countBuilds(host),
    countFolders(host),
  ]);
  return await registry.metrics();
}

async function countBuilds(host: Host): Promise<void> {
  const { store, live } = await host.builds.exclusive(async () => ({
    store: await sealed(host),
    // Where a head cannot be read, nobody knows what is needed.
    live: await markBuilds(host.builds).catch(() => undefined),
  }));
  for (const id of measured.keys()) if (!store.includes(id)) measured.delete(id);
  let bytes = 0;
  for (const id of store) bytes += await sizeOf(host, id);
  builds.set(store.length);
  storedBytes.set(bytes);
  if (live === undefined) orphans.remove({ kind: 'build' });
  else orphans.set({ kind: 'build' }, store.filter((id) => !live.has(id)).length);
}

async function sealed(host: Host): Promise<BuildId[]> {
  const names = await readdir(host.builds.paths.builds);
  return names.flatMap((name) => {
    const named = namedBuild(name);
    return named === undefined || named.temporary ? [] : [named.id];
  });
}

async function sizeOf(host: Host, id: BuildId): Promise<number> {
  const known = measured.get(id);
  if (known !== undefined) return known;
  const { dir } = host.builds.paths.build(id);
  let bytes = 0;
  for (const name of await readdir(dir).catch(() => [])) {
    bytes += await stat(path.join(dir, name)).then(
      ({ blocks }) => blocks * 512,
      () => 0,
    );
  }
  measured.set(id, bytes);
  return bytes;
}

async function countFolders(host: Host): Promise<void> {
  const names = await readdir(sandboxesDir(host.config.run)).catch(() => []);
  const vms = host.registry.all().map(({ record }) => vmOf(record));
  const known = new Set([...vms, ...host.spares.ids, ...host.places.names]);
  orphans.set({ kind: 'vm' }, names.filter((id) => !known.has(id)).length);
}
