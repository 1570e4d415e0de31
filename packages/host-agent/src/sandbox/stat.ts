/** What a running sandbox takes of its host, and where its memory came from. */
import type { Host } from '../host.ts';

const PAGE_BYTES = 4096;

export async function stat(host: Host, id: string) {
  const sandbox = host.registry.get(id);
  const { vm, keeper } = sandbox.running();
  const [memory, status] = await Promise.all([vm.memory.stats(), keeper.status()]);
  const memoryBytes = sandbox.record.memoryMb * 2 ** 20;
  const roles = Object.entries(status.roles).filter(([, role]) => role.running);
  return {
    memoryBytes: BigInt(memoryBytes),
    residentBytes: BigInt(memory.residentBytes),
    pagesFaulted: BigInt(memory.pagesFaulted + memory.pagesAhead),
    pagesTotal: BigInt(memoryBytes / PAGE_BYTES),
    faults: BigInt(memory.faults),
    bytesCopied: BigInt(memory.bytesCopied),
    bytesZeroed: BigInt(memory.bytesZeroed),
    faultUsP50: memory.latencyUs.p50,
    faultUsP99: memory.latencyUs.p99,
    pids: { keeper: status.pid, ...Object.fromEntries(roles.map(([name, role]) => [name, role.pid])) },
  };
}
