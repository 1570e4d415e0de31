import {
  type CreateSandbox,
  networkPolicy,
  newSandboxId,
  SANDBOX_LIMITS,
  TEMPLATE_ID,
  ThawError,
} from '@thaw/api';
import type { GetHostResponse, SandboxInfo } from '@thaw/api/rpc';
import { admit, type Owner } from '../auth/quota.ts';
import type { Ingress } from '../db/schema.ts';
import { toNetwork } from '../host/agent.ts';
import { noteTarget } from '../http/request.ts';
import type { Plane } from '../plane.ts';
import { baseOf } from '../template/name.ts';
import { resolveTemplate } from '../template/resolve.ts';
import type { TemplateRow } from '../template/table.ts';
import { recordStart } from './record-start.ts';
import type { Done } from './sandbox.ts';
import { insertSandbox, type SandboxRow } from './table.ts';

/** What a create of the E2B API says besides. */
export interface E2bCreate {
  /** Seconds from its start to its end, whatever it does. */
  ttlSec: number;
  pauseMemory: boolean;
  /** Its guest agent asks clients for no token. */
  open: boolean;
  trafficToken: string | null;
  ingress: Ingress;
  allowInternet: boolean | null;
  idempotency: { key: string; hash: string } | undefined;
}

/** Who the commands and files of these clients belong to, where they name nobody. */
const E2B_USER = { defaultUser: 'user', defaultWorkdir: '/home/user' };

/** Everything is checked before the row is written, and a create that fails on the host takes its row with it. */
export async function createSandbox(
  plane: Plane,
  { teamId, keyId }: Owner,
  wish: CreateSandbox,
  e2b?: E2bCreate,
): Promise<Done> {
  noteTarget(wish.template);
  const template = await resolveTemplate(plane, teamId, wish.template);
  const size = sizeOf(template, wish);
  checkAgainstHost(await plane.host.facts(), size);

  const id = newSandboxId();
  noteTarget(id);
  const wanted = {
    id,
    team_id: teamId,
    key_id: keyId,
    plane: plane.id,
    host_id: plane.hostId,
    template_id: template.id,
    template: template.name,
    status: 'pending',
    ...size,
    timeout_sec: wish.timeout_sec,
    on_timeout: wish.on_timeout,
    auto_resume: wish.auto_resume,
    network: JSON.stringify(networkPolicy(wish.network)),
    metadata: JSON.stringify(wish.metadata ?? {}),
    ...(e2b && columnsOf(e2b, template)),
  } as const;
  const row = (await admit(plane.db, { teamId, keyId }, (db) => insertSandbox(db, wanted)))!;
  return plane.verbs.run(id, 'create', `sandbox ${id} is pending`, () =>
    recordStart(plane, row, onHost(plane, row, wish.env ?? {}, e2b)),
  );
}

function columnsOf(e2b: E2bCreate, template: TemplateRow) {
  const alias = baseOf(template.name);
  return {
    ttl_sec: e2b.ttlSec,
    pause_memory: e2b.pauseMemory,
    traffic_token: e2b.trafficToken,
    ingress: JSON.stringify(e2b.ingress),
    allow_internet: e2b.allowInternet,
    alias: TEMPLATE_ID.test(alias) ? null : alias,
    idempotency_key: e2b.idempotency?.key ?? null,
    idempotency_hash: e2b.idempotency?.hash ?? null,
  };
}

interface Size {
  vcpus: number;
  memory_mb: number;
  disk_mb: number;
}

/** A snapshot fixes the size of what is made of it; a base template leaves it to the caller. */
function sizeOf(template: TemplateRow, wish: CreateSandbox): Size {
  if (template.type === 'snapshot') {
    const size = { vcpus: template.vcpus!, memory_mb: template.memory_mb!, disk_mb: template.disk_mb };
    for (const field of ['vcpus', 'memory_mb', 'disk_mb'] as const) {
      if (wish[field] === undefined || wish[field] === size[field]) continue;
      throw new ThawError(
        'invalid_request',
        `${field}: template ${template.name} has ${size[field]}, leave it out`,
      );
    }
    return size;
  }
  const disk = wish.disk_mb ?? Math.max(SANDBOX_LIMITS.diskMb.default, template.disk_mb);
  if (disk < template.disk_mb) {
    throw new ThawError(
      'invalid_request',
      `disk_mb: template ${template.name} needs at least ${template.disk_mb}`,
    );
  }
  return {
    vcpus: wish.vcpus ?? SANDBOX_LIMITS.vcpus.default,
    memory_mb: wish.memory_mb ?? SANDBOX_LIMITS.memoryMb.default,
    disk_mb: disk,
  };
}

function checkAgainstHost(facts: GetHostResponse, size: Size): void {
  const limits = [
    ['vcpus', size.vcpus, facts.vcpusMax],
    ['memory_mb', size.memory_mb, facts.memoryMbMax],
  ] as const;
  for (const [field, wanted, max] of limits) {
    if (wanted > max) throw new ThawError('invalid_request', `${field}: this host has at most ${max}`);
  }
}

function onHost(
  plane: Plane,
  row: SandboxRow,
  env: Record<string, string>,
  e2b: E2bCreate | undefined,
): Promise<SandboxInfo> {
  return plane.host.create({
    sandboxId: row.id,
    template: row.template_id,
    vcpus: row.vcpus,
    memoryMb: row.memory_mb,
    diskMb: row.disk_mb,
    env,
    network: toNetwork(row.network),
    ...(e2b && { ...E2B_USER, open: e2b.open }),
  });
}
