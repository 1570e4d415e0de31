/** A row as clients of the E2B API see it: running or paused, or not at all. */

import { type SandboxStatus, TEMPLATE_ID, ThawError } from '@thaw/api';
import type { Plane } from '../../plane.ts';
import { requireSandbox } from '../../sandbox/sandbox.ts';
import type { SandboxRow } from '../../sandbox/table.ts';
import { baseOf } from '../../template/name.ts';
import {
  CLIENT_ID,
  type E2bNetwork,
  type E2bSandbox,
  ENVD_VERSION,
  type ListedSandbox,
  type SandboxDetail,
} from './schema.ts';

/** Years away: a row of `/v1` that ends by being idle, or never, has no end, and clients need one. */
const NO_END = new Date('9999-12-31T23:59:59.000Z');

/** Undefined: it is not there for clients of this API. */
export function stateOf(status: SandboxStatus): 'running' | 'paused' | undefined {
  switch (status) {
    case 'running':
    case 'resuming':
    case 'snapshotting':
      return 'running';
    case 'pausing':
    case 'paused':
      return 'paused';
    // Not until it answers.
    case 'pending':
    case 'stopping':
    case 'stopped':
    case 'error':
      return undefined;
  }
}

/** The row; `not_found` unless it is running or paused. */
export async function requireListed(plane: Plane, teamId: string, id: string): Promise<SandboxRow> {
  const row = await requireSandbox(plane, teamId, id);
  if (stateOf(row.status) === undefined) throw gone(id);
  return row;
}

/** The row of one that can be destroyed: a broken one too, though nobody sees it. */
export async function requireKillable(plane: Plane, teamId: string, id: string): Promise<void> {
  const { status } = await requireSandbox(plane, teamId, id);
  if (status === 'stopping' || status === 'stopped') throw gone(id);
}

function gone(id: string): ThawError {
  return new ThawError('not_found', `sandbox ${id} does not exist`);
}

export function toE2bSandbox(plane: Plane, row: SandboxRow): E2bSandbox {
  return {
    ...identityOf(row),
    ...(row.access_token !== null && { envdAccessToken: row.access_token }),
    trafficAccessToken: row.traffic_token,
    domain: plane.domain,
  };
}

export function toListed(row: SandboxRow): ListedSandbox {
  const state = stateOf(row.status) ?? 'running';
  return {
    ...identityOf(row),
    startedAt: startOf(row).toISOString(),
    endAt: endOf(row, state).toISOString(),
    cpuCount: row.vcpus,
    memoryMB: row.memory_mb,
    diskSizeMB: row.disk_mb,
    metadata: row.metadata,
    state,
  };
}

export function toDetail(plane: Plane, row: SandboxRow): SandboxDetail {
  return {
    ...toListed(row),
    ...(row.access_token !== null && { envdAccessToken: row.access_token }),
    domain: plane.domain,
    allowInternetAccess: row.allow_internet,
    network: networkOf(row),
    lifecycle: { onTimeout: row.on_timeout, autoResume: row.auto_resume },
    ...(row.pause_mode !== null && { pauseMode: row.pause_mode }),
  };
}

function identityOf(row: SandboxRow) {
  const alias = row.alias ?? aliasOf(row.template);
  return {
    sandboxID: row.id,
    templateID: baseOf(row.template_id),
    clientID: CLIENT_ID,
    envdVersion: ENVD_VERSION,
    ...(alias !== null && { alias }),
  };
}

/** Of its last start. */
export function startOf({ resumed_at, started_at, created_at }: SandboxRow): Date {
  return resumed_at ?? started_at ?? created_at;
}

/** Without a name of its own a template has none. */
function aliasOf(template: string): string | null {
  const alias = baseOf(template);
  return TEMPLATE_ID.test(alias) ? null : alias;
}

/** A paused one ended when it paused. */
function endOf(row: SandboxRow, state: 'running' | 'paused'): Date {
  if (state === 'paused') return row.status_since;
  if (row.end_at !== null) return row.end_at;
  if (row.timeout_sec === 0) return NO_END;
  return new Date((row.last_active_at ?? row.created_at).getTime() + row.timeout_sec * 1000);
}

function networkOf({ network, ingress }: SandboxRow): E2bNetwork {
  return {
    ...(network.allow_out.length > 0 && { allowOut: network.allow_out }),
    ...(network.deny_out.length > 0 && { denyOut: network.deny_out }),
    ...(network.dns_servers && { dnsServers: network.dns_servers }),
    allowPublicTraffic: ingress.allow_public_traffic ?? true,
    ...(ingress.mask_request_host !== undefined && { maskRequestHost: ingress.mask_request_host }),
    ...(ingress.https_ports !== undefined && { httpsPorts: ingress.https_ports }),
  };
}
