/**
 * This host's figures. They count from the start of the process; the control plane fetches them with each scrape of its
 * own. Labels are of small sets: nothing is counted for each sandbox.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Dumped } from '../vmm/vmm.ts';

const STEP_BUCKETS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000];

export const registry = new Registry();
const registers = [registry];

collectDefaultMetrics({ register: registry, prefix: 'thaw_agent_' });

const stepMs = new Histogram({
  name: 'thaw_step_ms',
  help: 'Milliseconds of each labelled step of a verb on the host, failed ones too',
  labelNames: ['verb', 'step'] as const,
  buckets: STEP_BUCKETS_MS,
  registers,
});
const stepFailures = new Counter({
  name: 'thaw_step_failures_total',
  help: 'Steps that failed',
  labelNames: ['verb', 'step'] as const,
  registers,
});
const sealedBytes = new Counter({
  name: 'thaw_dirty_bytes_total',
  help: 'Bytes that seals found changed: stored, or known to be zero',
  labelNames: ['image', 'kind'] as const,
  registers,
});

export const restores = new Counter({
  name: 'thaw_restores_total',
  help: 'Restores of guest memory begun, by how it comes in',
  labelNames: ['backend'] as const,
  registers,
});
export const pageFaults = new Counter({
  name: 'thaw_page_faults_total',
  help: 'Page faults of guests that pagers answered',
  registers,
});
export const pages = new Counter({
  name: 'thaw_pages_total',
  help: 'Pages that came in: by a fault, or ahead of any',
  labelNames: ['cause'] as const,
  registers,
});
export const untouchedBytes = new Gauge({
  name: 'thaw_page_bytes_untouched',
  help: 'Bytes that came in ahead of any fault and that guests have not touched, of those that have ended too',
  registers,
});
export const pageBytes = new Counter({
  name: 'thaw_page_bytes_total',
  help: 'Bytes of guest memory that came in, by where they were: in the last build, in an older one, nowhere (zero)',
  labelNames: ['source'] as const,
  registers,
});
export const sandboxes = new Gauge({
  name: 'thaw_host_sandboxes',
  help: 'Sandboxes on this host by state',
  labelNames: ['status'] as const,
  registers,
});
export const slots = new Gauge({
  name: 'thaw_slots',
  help: 'Network slots: ready, in use, not built, or set aside because they could not be removed',
  labelNames: ['state'] as const,
  registers,
});
export const places = new Gauge({
  name: 'thaw_places',
  help: 'Slots in which all is ready for a VM to start: ready, or being made',
  labelNames: ['state'] as const,
  registers,
});
export const spares = new Gauge({
  name: 'thaw_spares',
  help: 'VMs that wait to become sandboxes: ready, or being made',
  labelNames: ['state'] as const,
  registers,
});
export const builds = new Gauge({ name: 'thaw_builds', help: 'Sealed builds on this host', registers });
export const storedBytes = new Gauge({
  name: 'thaw_stored_bytes',
  help: 'Bytes that builds take on disk',
  registers,
});
export const orphans = new Gauge({
  name: 'thaw_orphans',
  help: 'What nothing needs and nobody has removed yet: builds, folders of VMs, network slots',
  labelNames: ['kind'] as const,
  registers,
});

/** For `Steps`. */
export function observeStep(label: string, ms: number, failed: boolean): void {
  const colon = label.indexOf(':');
  const labels =
    colon < 0 ? { verb: 'seal', step: label } : { verb: label.slice(0, colon), step: label.slice(colon + 1) };
  stepMs.observe(labels, ms);
  if (failed) stepFailures.inc(labels);
}

/** What one seal found changed. */
export function observeSeal(
  memory: Pick<Dumped, 'storedBytes' | 'zeroBytes'>,
  disk: { storedBytes: number; zeroBytes: number },
): void {
  for (const [image, found] of [
    ['memory', memory],
    ['disk', disk],
  ] as const) {
    sealedBytes.inc({ image, kind: 'stored' }, found.storedBytes);
    sealedBytes.inc({ image, kind: 'zero' }, found.zeroBytes);
  }
}
