import type { SandboxStats } from '@thaw/api';
import type { Plane } from '../plane.ts';
import { requireRunning } from './sandbox.ts';

export async function statSandbox(plane: Plane, teamId: string, id: string): Promise<SandboxStats> {
  await requireRunning(plane, teamId, id);
  const stat = await plane.host.stat(id);
  return {
    memory_bytes: Number(stat.memoryBytes),
    resident_bytes: Number(stat.residentBytes),
    pages_faulted: Number(stat.pagesFaulted),
    pages_total: Number(stat.pagesTotal),
    faults: Number(stat.faults),
    bytes_copied: Number(stat.bytesCopied),
    bytes_zeroed: Number(stat.bytesZeroed),
    fault_us: { p50: stat.faultUsP50, p99: stat.faultUsP99 },
    pids: stat.pids,
  };
}
