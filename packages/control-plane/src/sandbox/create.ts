import {
  type CreateSandbox,
  networkPolicy,
  newSandboxId,
  SANDBOX_LIMITS,
  type Sandbox,
  ThawError,
} from '@thaw/api';
import type { SandboxInfo } from '@thaw/api/rpc';
import { admit, type Owner } from '../auth/quota.ts';
import { toNetwork } from '../host/agent.ts';
import { noteTarget } from '../http/request.ts';
import type { Plane } from '../plane.ts';
import { syncTemplates } from '../template/sync.ts';
import { findTemplate, type TemplateRow } from '../template/table.ts';
import { recordStart } from './record-start.ts';
import { findSandbox, insertSandbox, type SandboxRow } from './table.ts';

/** Everything is checked before the row is written, and a create that fails on the host takes its row with it. */
export async function createSandbox(
  plane: Plane,
  { teamId, keyId }: Owner,
  wish: CreateSandbox,
): Promise<Sandbox> {
  const template = await requireTemplate(plane, teamId, wish.template);
  const size = sizeOf(template, wish);
  await checkAgainstHost(plane, size);

  const id = newSandboxId();
  noteTarget(id);
  const row = {
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
  } as const;
  await admit(plane.db, { teamId, keyId }, async (db) => {
    await insertSandbox(db, row);
    return row;
  });
  return plane.verbs.run(id, 'create', `sandbox ${id} is pending`, async () => {
    const row = (await findSandbox(plane.db, teamId, id))!;
    return await recordStart(plane, row, onHost(plane, row, template.id, wish.env ?? {}));
  });
}

async function requireTemplate(plane: Plane, teamId: string, nameOrId: string): Promise<TemplateRow> {
  const known = await findTemplate(plane.db, teamId, nameOrId);
  if (known) return known;
  await syncTemplates(plane);
  const found = await findTemplate(plane.db, teamId, nameOrId);
  if (!found) throw new ThawError('not_found', `template ${nameOrId} does not exist`);
  return found;
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

async function checkAgainstHost(plane: Plane, size: Size): Promise<void> {
  const facts = await plane.host.facts();
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
  templateId: string,
  env: Record<string, string>,
): Promise<SandboxInfo> {
  return plane.host.create({
    sandboxId: row.id,
    template: templateId,
    vcpus: row.vcpus,
    memoryMb: row.memory_mb,
    diskMb: row.disk_mb,
    env,
    network: toNetwork(row.network),
  });
}
