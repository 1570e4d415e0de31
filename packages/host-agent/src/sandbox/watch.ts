/** Notices when a running sandbox loses one of its processes: it becomes `error`, everything else of it goes. */
import { type Host, newSteps } from '../host.ts';
import type { Machine } from './machine.ts';
import { writeRecord } from './record.ts';
import type { Sandbox } from './sandbox.ts';

/** To be called once for each machine that a sandbox gets. */
export function watch(host: Host, sandbox: Sandbox, machine: Machine): void {
  const lost = (what: string): void => {
    if (!machine.isEnding) void fail(host, sandbox, machine, what);
  };
  // A guest whose pager or disk is gone hangs for ever, and the keeper's end takes the VM with it.
  machine.keeper.on('exit', ({ role }) => {
    if (role === 'vmm') lost('the VM ended');
    else if (role === 'pager') lost('the memory server ended');
    else if (role === 'blockstore') lost('the disk server ended');
  });
  machine.keeper.on('close', () => lost('the keeper ended'));
}

async function fail(host: Host, sandbox: Sandbox, machine: Machine, what: string): Promise<void> {
  host.log.error({ sandbox: sandbox.id, what }, 'sandbox lost');
  const wasRunning = sandbox.state.status === 'running';
  if (wasRunning) sandbox.state = { status: 'error', reason: what };
  sandbox.endCalls();
  await machine
    .end()
    .catch((error) => host.log.error({ sandbox: sandbox.id, err: error }, 'clean-up failed'));
  // A verb in flight meets the same loss and settles the state itself.
  if (!wasRunning) return;
  sandbox.record = { ...sandbox.record, started: false, errorReason: what };
  await writeRecord(host.config, sandbox.record, newSteps(host), 'watch:write-record').catch((error) =>
    host.log.error({ sandbox: sandbox.id, err: error }, 'record not written'),
  );
}
