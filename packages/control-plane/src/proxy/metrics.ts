/** What goes through the proxy. Labels are of small sets: nothing is counted for each sandbox. */
import { Counter, Gauge, Histogram } from 'prom-client';
import { registry } from '../metrics/metrics.ts';

const registers = [registry];

export const proxyRequests = new Counter({
  name: 'thaw_proxy_requests_total',
  help: "Requests by who answered them and how: a guest's answers by their class, the proxy's own by their status; cut: none or not whole",
  labelNames: ['by', 'status'] as const,
  registers,
});
export const proxyHeadMs = new Histogram({
  name: 'thaw_proxy_head_ms',
  help: "Milliseconds from the head of a request to that of the guest's answer, a resume that it waited for included",
  buckets: [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 30_000],
  registers,
});
export const proxyWakes = new Counter({
  name: 'thaw_proxy_wakes_total',
  help: 'Paused sandboxes that traffic resumed',
  labelNames: ['outcome'] as const,
  registers,
});
export const proxyOpen = new Gauge({
  name: 'thaw_proxy_open',
  help: 'Requests and tunnels (WebSockets and other upgrades) that are open, and those of them that wait for a resume',
  labelNames: ['kind'] as const,
  registers,
});
for (const kind of ['request', 'tunnel', 'waiting']) proxyOpen.set({ kind }, 0);
