/** Notices when a running sandbox loses one of its processes: it becomes `error`, everything else of it goes. */
import { ThawError } from '@thaw/api';
import { type Host, newSteps } from '../host.ts';
import { ROLES } from '../network/addresses.ts';
import type { Machine } from './machine.ts';
import { writeRecord } from './record.ts';
import type { Sandbox } from './sandbox.ts';

const LOST = {
  vmm: 'the VM ended',
  pager: 'the memory server ended',
  blockstore: 'the disk server ended',
} as const;
/** One that dies this often on one VM dies of it. */
const PAGERS_MAX = 5;

/** To be called once for each machine that a sandbox gets. */
export function watch(host: Host, sandbox: Sandbox, machine: Machine): void {
  const lost = (what: string): void => {
    if (!machine.isEnding) void fail(host, sandbox, machine, what);
  };
  let replaced = 0;
  const end = (role: (typeof ROLES)[number]): void => {
    if (role !== 'pager' || replaced++ >= PAGERS_MAX) {
      lost(LOST[role]);
      return;
    }
    void replacePager(host, sandbox, machine).then((isServed) => {
      if (!isServed) lost(LOST.pager);
    });
  };
  // A guest whose pager or disk is gone hangs for ever, and the keeper's end takes the VM with it.
  machine.keeper.on('exit', (exit) => {
    const ended = ROLES.find((role) => role === exit.role);
    if (ended !== undefined) end(ended);
  });
  machine.keeper.on('close', () => lost('the keeper ended'));
  // What ended before anybody listened sends no event any more.
  machine.keeper.status().then(
    ({ roles }) => {
      const ended = ROLES.find((role) => roles[role]?.running === false);
      if (ended !== undefined) end(ended);
    },
    (error) => {
      // One that is only slow tells of it later.
      if (error instanceof ThawError && error.kind === 'unavailable') lost('the keeper ended');
    },
  );
}

/** False if the VM is lost: a verb in flight has asked the dead pager for what no other can answer. */
async function replacePager(host: Host, sandbox: Sandbox, machine: Machine): Promise<boolean> {
  const isIts = () => sandbox.state.status === 'running' && sandbox.state.machine === machine;
  if (machine.isEnding || !isIts()) return false;
  const replace = async (): Promise<boolean> => {
    if (machine.isEnding || !isIts()) return false;
    try {
      const { roles } = await machine.keeper.status();
      if (roles.pager?.running === true) return true;
      await machine.replacePager();
      host.log.warn({ sandbox: sandbox.id }, 'a pager died and was replaced');
      return true;
    } catch (error) {
      host.log.error({ sandbox: sandbox.id, err: error }, 'a pager died and could not be replaced');
      return false;
    }
  };
  return await sandbox.exclusive('lost', replace, 'pager');
}

/** A verb in flight meets the same loss; what it leaves is settled after it, and before any other. */
async function fail(host: Host, sandbox: Sandbox, machine: Machine, what: string): Promise<void> {
  host.log.error({ sandbox: sandbox.id, what }, 'sandbox lost');
  sandbox.endCalls();
  const ended = machine
    .end()
    .catch((error) => host.log.error({ sandbox: sandbox.id, err: error }, 'clean-up failed'));
  await sandbox.exclusive('lost', async () => {
    const { state } = sandbox;
    const isIts = state.status === 'running' && state.machine === machine;
    if (isIts) sandbox.state = { status: 'error', reason: what };
    await ended;
    if (!isIts) return;
    sandbox.record = { ...sandbox.record, started: false, errorReason: what };
    await writeRecord(host.config, sandbox.record, newSteps(host), 'watch:write-record').catch((error) =>
      host.log.error({ sandbox: sandbox.id, err: error }, 'record not written'),
    );
  });
}
