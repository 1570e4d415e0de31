/** This control plane's figures, from the start of the process. Labels are of small sets: nothing is counted for each sandbox. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

const REQUEST_BUCKETS_MS = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 30_000];
const VERB_BUCKETS_MS = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000];

export const registry = new Registry();
const registers = [registry];

collectDefaultMetrics({ register: registry, prefix: 'thaw_plane_' });

const requests = new Counter({
  name: 'thaw_http_requests_total',
  help: 'Requests by what answered them and how',
  labelNames: ['method', 'route', 'status'] as const,
  registers,
});
const requestMs = new Histogram({
  name: 'thaw_http_request_ms',
  help: 'Milliseconds from the head of a request to the end of its answer',
  labelNames: ['method', 'route'] as const,
  buckets: REQUEST_BUCKETS_MS,
  registers,
});
export const verbMs = new Histogram({
  name: 'thaw_verb_ms',
  help: 'Milliseconds that a host took for a verb, as the control plane saw it',
  labelNames: ['verb', 'outcome'] as const,
  buckets: VERB_BUCKETS_MS,
  registers,
});
export const sandboxes = new Gauge({
  name: 'thaw_sandboxes',
  help: 'Sandboxes of all teams by status; stopped ones as long as their rows are kept',
  labelNames: ['status'] as const,
  registers,
});
export const hostUp = new Gauge({
  name: 'thaw_host_up',
  help: 'Whether the host answers; its own figures follow if it does',
  registers,
});

/** `route` is the pattern, so that there are as many as there are routes. */
export function countRequest(method: string, route: string | undefined, status: number, ms: number): void {
  const labels = { method, route: route ?? 'none' };
  requests.inc({ ...labels, status });
  requestMs.observe(labels, ms);
}
