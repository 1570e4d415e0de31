/** A sandbox as the proxy knows it: where it is, and who may come in. Pure. */
import type { SandboxStatus } from '@thaw/api';
import type { Ingress } from '../db/schema.ts';
import { type Address, AGENT_PORT } from './address.ts';

export interface Route {
  id: string;
  teamId: string;
  /** Grows with every change. */
  revision: number;
  status: SandboxStatus;
  hostIp: string | null;
  /** What the guest agent asks for; null: nothing, as far as is known. */
  accessToken: string | null;
  trafficToken: string | null;
  ingress: Ingress;
  autoResume: boolean;
  pauseMode: 'full' | 'filesystem' | null;
}

/** Where traffic goes now. A snapshot of a running sandbox interrupts nobody. */
export function isReachable(route: Route): route is Route & { hostIp: string } {
  return (route.status === 'running' || route.status === 'snapshotting') && route.hostIp !== null;
}

/** Whether what goes to `before` may stay: the VM is the same, or may be again once a pause that failed is undone. */
export function staysAt(before: Route, now: Route | undefined): boolean {
  if (now === undefined || now.hostIp !== before.hostIp || now.hostIp === null) return false;
  return now.status === 'running' || now.status === 'snapshotting' || now.status === 'pausing';
}

/** Whether the service at a port of its guest speaks TLS; the agent never does. */
export function isOverTls({ ingress }: Route, { port }: Address): boolean {
  return port !== AGENT_PORT && ingress.https_ports?.includes(port) === true;
}

export type Rest =
  /** Traffic wakes it. */
  | 'asleep'
  /** It will be asleep or awake soon, and traffic may wake it. */
  | 'drowsy'
  /** It is on its way to somewhere, and traffic has no say. */
  | 'moving'
  | 'gone';

/** Of one that is not reachable. What is only a disk is not started by traffic. */
export function restOf({ status, autoResume, pauseMode }: Route): Rest {
  switch (status) {
    case 'paused':
      return autoResume && pauseMode !== 'filesystem' ? 'asleep' : 'gone';
    case 'pausing':
    case 'resuming':
    case 'snapshotting':
      return autoResume ? 'drowsy' : 'moving';
    case 'pending':
    case 'running':
      return 'moving';
    case 'stopping':
    case 'stopped':
    case 'error':
      return 'gone';
  }
}
