/** What every verb on this host works with; made once by `main.ts`. */
import type { Logger } from 'pino';
import type { BuildStore } from './build/store.ts';
import type { Config } from './config.ts';
import type { Guests } from './guest/control.ts';
import type { Keepers } from './keeper/keeper.ts';
import { observeStep } from './metrics/metrics.ts';
import type { Slots } from './network/pool.ts';
import type { Cgroups } from './os/cgroup/cgroups.ts';
import { type Fault, Steps } from './os/step.ts';
import type { Sampler } from './sample/sampler.ts';
import type { Boots } from './sandbox/boot.ts';
import type { Places } from './sandbox/places.ts';
import type { Registry } from './sandbox/registry.ts';
import type { Spares } from './sandbox/spare.ts';
import type { BootFiles } from './vmm/boot-files.ts';
import type { VmmKit } from './vmm/vmm.ts';

export interface Host {
  config: Config;
  log: Logger;
  registry: Registry;
  builds: BuildStore;
  slots: Slots;
  keepers: Keepers;
  guests: Guests;
  /** The limits of sandboxes' processes. */
  cgroups: Cgroups;
  /** What new VMs run under. */
  vmm: VmmKit;
  /** What VMs and snapshots of `vmm` run under. Throws `invalid_state` where this host has no such VMM. */
  kitOf(vmm: string): Promise<VmmKit>;
  preloadSha: string;
  boots: Boots;
  spares: Spares;
  sampler: Sampler;
  places: Places;
  /** What new VMs boot with. */
  boot: BootFiles;
  /** Set by tests: fails, or stops the process at, one labelled step. */
  fault: Fault | undefined;
}

export function newSteps(host: Host): Steps {
  return new Steps(host.fault, observeStep);
}
