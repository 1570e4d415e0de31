/** From what this machine offers to a host whose verbs can be called: what an earlier host agent left is taken over or swept. */
import { collectBuilds } from './build/collect.ts';
import { openBuildStore } from './build/store.ts';
import { type Host, newSteps } from './host.ts';
import type { Egress } from './network/egress.ts';
import type { Slots } from './network/pool.ts';
import { Sampler } from './sample/sampler.ts';
import { adopt, findSurvivors, sweepRemains } from './sandbox/adopt.ts';
import { Boots, sweepBoots } from './sandbox/boot.ts';
import { Places } from './sandbox/places.ts';
import { readRecords, vmOf } from './sandbox/record.ts';
import { Registry } from './sandbox/registry.ts';
import { Spares } from './sandbox/spare.ts';
import { importImages } from './template/import.ts';

/** The slot of a sandbox that still runs, and what its guest may reach. */
export interface KeptSlot {
  index: number;
  egress: Egress;
}

export interface Offer
  extends Omit<Host, 'registry' | 'builds' | 'slots' | 'boots' | 'spares' | 'places' | 'sampler'> {
  /** The folder of the installed images. */
  guestDir: string;
  /** Called once, when it is known which sandboxes still run. */
  openSlots(keep: readonly KeptSlot[]): Promise<Slots & AsyncDisposable>;
}

export interface StartedHost extends AsyncDisposable {
  host: Host;
}

export async function startHost({ guestDir, openSlots, ...offer }: Offer): Promise<StartedHost> {
  const { config, log, cgroups, keepers } = offer;
  await using undo = new AsyncDisposableStack();
  const builds = await openBuildStore(config.data);
  const remains = await sweepRemains(builds, config);
  if (remains.length > 0) log.info({ remains }, 'removed what was never made or half destroyed');
  const records = await readRecords(config, (id, error) =>
    log.error({ sandbox: id, err: error }, 'the record of a sandbox is damaged'),
  );
  const found = await findSurvivors(builds, keepers, config, records);
  const slots = undo.use(
    await openSlots(
      found.survivors.map(({ state, record }) => ({ index: state.slot, egress: record.egress })),
    ),
  );
  const registry = new Registry();
  const spares = new Spares(() => host, config.spares);
  const places = new Places(() => host, config.places);
  const sampler = new Sampler({ config, log, registry });
  const host: Host = { ...offer, registry, builds, slots, boots: new Boots(), spares, places, sampler };
  await importImages(host, guestDir);
  await adopt(host, records, found);
  await sweepBoots(host);
  undo.use(await startCollecting(host));
  const running = registry.all().filter(({ state }) => state.status === 'running');
  await cgroups.sweep(new Set(running.map(({ record }) => vmOf(record))));
  undo.use(places);
  undo.use(spares);
  places.refill(0);
  spares.refill();
  const close = undo.move();
  return { host, [Symbol.asyncDispose]: () => close.disposeAsync() };
}

/** Sweeps what a crash or a failed removal left of builds: now, and again while this runs. */
async function startCollecting(host: Host): Promise<AsyncDisposable> {
  const ageMs = host.config.buildGraceMs;
  const sweep = () =>
    collectBuilds(host.builds, newSteps(host), { ageMs }).then(
      (removed) => removed.length > 0 && host.log.info({ builds: removed }, 'builds swept'),
      (error) => host.log.error({ err: error }, 'builds not swept'),
    );
  let sweeping = sweep();
  await sweeping;
  const timer = setInterval(
    () => {
      sweeping = sweeping.then(sweep);
    },
    Math.max(1000, ageMs / 4),
  );
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      await sweeping;
    },
  };
}
