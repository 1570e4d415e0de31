/** The host's objects as RPC messages. */
import type { MessageInitShape } from '@bufbuild/protobuf';
import { told } from '@thaw/api';
import type {
  ForkedSandboxSchema,
  GetHostResponseSchema,
  SandboxInfoSchema,
  TemplateSchema,
} from '@thaw/api/rpc';
import type { BuildSize } from '../build/measure.ts';
import type { Host } from '../host.ts';
import { diskRoom } from '../sandbox/room.ts';
import type { Sandbox } from '../sandbox/sandbox.ts';
import type { DamagedTemplate, Template } from '../template/facts.ts';

function build(size: BuildSize) {
  return {
    id: size.id,
    generation: size.generation,
    storedBytes: BigInt(size.storedBytes),
    memoryStoredBytes: BigInt(size.memoryStoredBytes),
    diskStoredBytes: BigInt(size.diskStoredBytes),
    guestUnresponsive: size.guestUnresponsive,
  };
}

export function sandboxInfo(host: Host, sandbox: Sandbox): MessageInitShape<typeof SandboxInfoSchema> {
  const { record, state } = sandbox;
  const { info } = state.status === 'running' ? state.machine.vm : host.vmm;
  return {
    sandboxId: record.id,
    status: state.status,
    template: record.template,
    vcpus: record.vcpus,
    memoryMb: record.memoryMb,
    diskMb: record.diskMb,
    hostIp: state.status === 'running' ? state.machine.slot.hostAddress : '',
    createdAtUnix: BigInt(record.createdAt),
    lastActiveAtUnix: BigInt(record.lastActiveAt),
    timeoutSec: record.timeoutSec,
    isolation: info.isolation,
    vmm: info.vmm,
    // How a paused one's will come back.
    backend: state.status === 'running' ? state.machine.vm.memory.backend : 'uffd',
    ...(sandbox.build === undefined ? {} : { build: build(sandbox.build) }),
    ...(state.status === 'error' ? { errorReason: state.reason } : {}),
    timingsMs: Object.fromEntries(sandbox.timings),
    network: record.egress,
    accessToken: record.accessToken,
    diskOnly: state.status === 'paused' && sandbox.build?.diskOnly === true,
  };
}

/** Why one did not start is told to whoever asked; what is behind it stays in the log. */
export function forkedInfo(
  host: Host,
  child: PromiseSettledResult<Sandbox>,
): MessageInitShape<typeof ForkedSandboxSchema> {
  if (child.status === 'fulfilled') return { sandbox: sandboxInfo(host, child.value) };
  const { reason } = child;
  host.log.warn({ err: reason }, 'a fork did not start');
  const { code, message } = told(reason);
  return { errorKind: code, errorMessage: message };
}

export function templateInfo(template: Template | DamagedTemplate): MessageInitShape<typeof TemplateSchema> {
  if ('errorReason' in template) {
    const { id, facts, errorReason } = template;
    return { id, name: facts?.name ?? '', type: facts?.type ?? '', errorReason };
  }
  const { id, name, type, vcpus, memoryMb, diskMb } = template;
  return {
    id,
    name,
    type,
    vcpus,
    memoryMb,
    diskMb,
    build: build(template.build),
    createdAtUnix: BigInt(template.createdAt),
  };
}

export async function hostInfo(host: Host): Promise<MessageInitShape<typeof GetHostResponseSchema>> {
  const { vcpusMax, memoryMbMax } = host.config;
  const { taken, warm, free } = host.slots.counts();
  const { isolation, vmm, version } = host.vmm.info;
  const { freeBytes, reservedBytes } = await diskRoom(host);
  return {
    vcpusMax,
    memoryMbMax,
    isolation,
    vmm,
    vmmVersion: version,
    slotsTotal: taken + warm + free,
    slotsUsed: taken,
    instance: host.slots.instance,
    diskFreeBytes: BigInt(freeBytes),
    diskReservedBytes: BigInt(reservedBytes),
  };
}
