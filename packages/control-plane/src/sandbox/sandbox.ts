/** A sandbox's row: found, judged, told to a client. */
import { SANDBOX_ID, type Sandbox, type SandboxStatus, ThawError } from '@thaw/api';
import type { SandboxInfo } from '@thaw/api/rpc';
import { recordBuild } from '../build/record.ts';
import type { Plane } from '../plane.ts';
import { findSandbox, moveSandbox, type SandboxPatch, type SandboxRow } from './table.ts';

/** The guest's address is the same in every VM; it is told only while there is one. */
const GUEST_IP = '169.254.0.21';
/** What a host can say after a verb. */
const SETTLED = ['running', 'paused', 'error'] as const;
const ALIVE: readonly SandboxStatus[] = ['running', 'snapshotting', 'pausing'];

export async function requireSandbox(plane: Plane, teamId: string, id: string): Promise<SandboxRow> {
  const row = SANDBOX_ID.test(id) ? await findSandbox(plane.db, teamId, id) : undefined;
  if (!row) throw new ThawError('not_found', `sandbox ${id} does not exist`);
  return row;
}

/** The row, if its guest can be reached now; a snapshot does not interrupt that. */
export async function requireRunning(plane: Plane, teamId: string, id: string): Promise<SandboxRow> {
  const row = await requireSandbox(plane, teamId, id);
  if (row.status !== 'running' && row.status !== 'snapshotting') throw wrongState(row);
  return row;
}

export function wrongState(row: SandboxRow): ThawError {
  return new ThawError('invalid_state', `sandbox ${row.id} is ${row.status}`);
}

/** Writes down what the host says about a sandbox, if its row is still in one of the statuses `from`. */
export async function recordHostState(
  plane: Plane,
  row: SandboxRow,
  from: readonly SandboxStatus[],
  info: SandboxInfo,
  extra: SandboxPatch = {},
  revision?: number,
): Promise<SandboxRow | undefined> {
  const status = SETTLED.find((one) => one === info.status);
  if (!status)
    throw new ThawError('agent_error', `the host says that sandbox ${row.id} is ${info.status || 'nothing'}`);
  const buildId = isKnown(row, info) ? row.build_id : await recordBuild(plane.db, info.build, row.build_id);
  const patch: SandboxPatch = {
    status,
    host_ip: info.hostIp || null,
    isolation: info.isolation || null,
    vmm: info.vmm || null,
    backend: info.backend || null,
    build_id: buildId ?? row.build_id,
    access_token: info.accessToken || null,
    pause_mode: status !== 'paused' ? null : info.diskOnly ? 'filesystem' : 'full',
    error_reason: status === 'error' ? (info.errorReason ?? 'the host gave no reason') : null,
    ...extra,
  };
  return moveSandbox(plane.db, row.id, from, patch, revision);
}

/** Whether there is nothing new to write down about its build. */
function isKnown({ build_id, build_stored_bytes }: SandboxRow, { build }: SandboxInfo): boolean {
  if (build === undefined || build_stored_bytes === null) return false;
  return build.id === build_id && Number(build.storedBytes) === Number(build_stored_bytes);
}

/** What a verb left, and the milliseconds of its steps on the host. */
export interface Done {
  row: SandboxRow;
  timings: Record<string, number>;
}

export function toSandbox(row: SandboxRow, timings?: Record<string, number>): Sandbox {
  const alive = ALIVE.includes(row.status) && row.host_ip !== null;
  return {
    id: row.id,
    status: row.status,
    template: row.template,
    vcpus: row.vcpus,
    memory_mb: row.memory_mb,
    disk_mb: row.disk_mb,
    timeout_sec: row.timeout_sec,
    ...(row.end_at && { end_at: row.end_at.toISOString() }),
    on_timeout: row.on_timeout,
    auto_resume: row.auto_resume,
    network: row.network,
    ...(alive && { guest_ip: GUEST_IP, host_ip: row.host_ip! }),
    ...(row.isolation && { isolation: row.isolation }),
    ...(row.vmm && { vmm: row.vmm }),
    ...(row.backend && { backend: row.backend }),
    ...(row.build_id && { build: toBuild(row.build_id, row) }),
    metadata: row.metadata,
    ...(row.error_reason && { error_reason: row.error_reason }),
    ...(row.rolled_back_to && { rolled_back_to: row.rolled_back_to }),
    created_at: row.created_at.toISOString(),
    ...(row.started_at && { started_at: row.started_at.toISOString() }),
    ...(row.last_active_at && { last_active_at: row.last_active_at.toISOString() }),
    last_updated: row.last_updated.toISOString(),
    ...(timings && Object.keys(timings).length > 0 && { timings_ms: timings }),
  };
}

export function toBuild(
  id: string,
  row: { build_generation: number | null; build_stored_bytes: string | number | null },
) {
  return { id, generation: row.build_generation ?? 0, stored_bytes: Number(row.build_stored_bytes ?? 0) };
}
