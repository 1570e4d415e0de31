/** Says what a sandbox's guest may reach: at once if it runs, and at every later start. */
import { type Host, newSteps } from '../host.ts';
import type { Egress } from '../network/egress.ts';
import { writeRecord } from './record.ts';
import type { Sandbox } from './sandbox.ts';

export function setNetwork(host: Host, id: string, egress: Egress): Promise<Sandbox> {
  const sandbox = host.registry.get(id);
  return sandbox.exclusive(
    'network',
    async () => {
      const { state } = sandbox;
      if (state.status !== 'running' && state.status !== 'paused' && state.status !== 'error')
        throw sandbox.refused();
      // The rules come first: a sandbox is never told to be shut in while it is not.
      if (state.status === 'running') await state.machine.slot.setEgress(egress);
      sandbox.record = { ...sandbox.record, egress };
      await writeRecord(host.config, sandbox.record, newSteps(host), 'network:write-record');
      return sandbox;
    },
    JSON.stringify(egress),
  );
}
