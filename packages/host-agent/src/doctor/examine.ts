/** Examines a machine: every probe in order, each with a time limit; one that breaks counts against the machine. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Finding, fail, type Machine, type Probe, warn } from './finding.ts';
import { cgroups, fuse, kvm, memoryServing, reason, system } from './kernel.ts';
import { addresses, forwarding, namespaces, nftables, ports } from './network.ts';
import { installation, node, postgres, qemu, tools, users } from './programs.ts';
import { storage } from './storage.ts';
import { vmm } from './vmm.ts';

export interface Report {
  /** Sandboxes can run here. */
  ok: boolean;
  /** What would separate a guest from this machine. */
  isolation: 'hardware-vm' | 'emulated';
  findings: Finding[];
}

const PROBE_TIMEOUT_MS = 15_000;

export const PROBES: readonly Probe[] = [
  { name: 'system', ifBroken: 'fail', run: system },
  { name: 'KVM', ifBroken: 'warn', run: kvm },
  { name: 'VMM', ifBroken: 'fail', run: vmm },
  { name: 'userfaultfd', ifBroken: 'fail', run: memoryServing },
  { name: 'FUSE', ifBroken: 'fail', run: fuse },
  { name: 'tun', ifBroken: 'fail', run: namespaces },
  { name: 'nftables', ifBroken: 'fail', run: nftables },
  { name: 'forwarding', ifBroken: 'warn', run: forwarding },
  { name: 'addresses', ifBroken: 'fail', run: addresses },
  { name: 'port', ifBroken: 'fail', run: ports },
  { name: 'cgroups', ifBroken: 'warn', run: cgroups },
  { name: 'storage', ifBroken: 'fail', run: storage },
  { name: 'installation', ifBroken: 'fail', run: installation },
  { name: 'users', ifBroken: 'fail', run: users },
  { name: 'Node.js', ifBroken: 'fail', run: node },
  { name: 'PostgreSQL', ifBroken: 'fail', run: postgres },
  { name: 'QEMU', ifBroken: 'fail', run: qemu },
  { name: 'programs', ifBroken: 'fail', run: tools },
];

export async function examine(
  machine: Machine,
  probes = PROBES,
  timeoutMs = PROBE_TIMEOUT_MS,
): Promise<Report> {
  const findings: Finding[] = [];
  for (const probe of probes) findings.push(...(await runProbe(probe, machine, timeoutMs)));
  const kvmWorks = findings.some(({ name, status }) => name === 'KVM' && status === 'ok');
  return {
    ok: findings.every(({ status }) => status !== 'fail'),
    isolation: kvmWorks ? 'hardware-vm' : 'emulated',
    findings,
  };
}

async function runProbe(probe: Probe, machine: Machine, timeoutMs: number): Promise<Finding[]> {
  const broken = (found: string) =>
    probe.ifBroken === 'fail'
      ? [fail(probe.name, found, 'see the message; the rest of this report may tell why')]
      : [warn(probe.name, found)];
  try {
    const late = sleep(timeoutMs, 'late' as const, { ref: false });
    const found = await Promise.race([probe.run(machine), late]);
    if (found === 'late') return broken(`the probe has not ended after ${timeoutMs / 1000} s`);
    return [found].flat();
  } catch (error) {
    return broken(`the probe failed: ${reason(error)}`);
  }
}
