/** The sandboxes that run on a run folder, whether a host agent watches them or not. */
import { readdir } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { keeperSocket, sandboxesFolder } from '../install/paths.ts';
import { countRunning, listSandboxes, pauseSandbox } from '../up/agent.ts';

const KEEPER_TIMEOUT_MS = 30_000;

/** Without a host agent, whatever has a keeper; with one, not what waits to become a sandbox. */
export async function countSandboxes(run: string): Promise<number> {
  const socket = path.join(run, 'agent.sock');
  return await countRunning(socket).catch(async () => (await keepers(run)).length);
}

/** Pauses what runs, as far as it can be paused. */
export async function pauseSandboxes(run: string, say: (text: string) => void): Promise<void> {
  const socket = path.join(run, 'agent.sock');
  const known = await listSandboxes(socket).catch(() => []);
  for (const { id, status } of known) {
    if (status !== 'running') continue;
    await pauseSandbox(socket, id).catch((error) =>
      say(`${id} can't be paused: ${(error as Error).message}`),
    );
  }
}

/** Ends what goes on without a host agent; its sandboxes lose what came after their last builds. */
export async function endVms(run: string, say: (text: string) => void): Promise<void> {
  for (const vm of await keepers(run)) {
    say(`${vm} is ended: it goes back to its last pause or snapshot`);
    await endKeeper(keeperSocket(run, vm));
  }
}

/** Names of the VMs whose keeper answers. */
async function keepers(run: string): Promise<string[]> {
  const ids = await readdir(sandboxesFolder(run)).catch(() => []);
  const alive = await Promise.all(
    ids.map(async (id) => ((await answers(keeperSocket(run, id))) ? [id] : [])),
  );
  return alive.flat();
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ path: socketPath });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** The keeper ends its processes, answers, and leaves. */
function endKeeper(socketPath: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ path: socketPath });
    socket.setTimeout(KEEPER_TIMEOUT_MS, () => socket.destroy(new Error('the keeper does not end')));
    socket.once('error', reject);
    socket.once('close', () => resolve());
    socket.resume();
    socket.write('{"id":1,"op":"end"}\n');
  });
}
