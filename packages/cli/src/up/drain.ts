/** Pauses every sandbox of a host before `thaw up --drain` stops. */
import { setTimeout as sleep } from 'node:timers/promises';
import { listSandboxes, pauseSandbox } from './agent.ts';

/** A pause writes memory to disk: more at a time are no faster. */
const AT_ONCE = 2;
/** A verb of somebody else may be in the way. */
const TRIES = 3;
const VERB_POLL_MS = 200;
const AT_REST: readonly string[] = ['paused', 'error'];

/** Returns when no sandbox runs or is at work, but for those that can't be paused: they go on, and `say` names them. */
export async function drain(socket: string, say: (text: string) => void): Promise<void> {
  const tries = new Map<string, number>();
  for (;;) {
    const awake = (await listSandboxes(socket)).filter(
      ({ id, status }) => !AT_REST.includes(status) && (tries.get(id) ?? 0) < TRIES,
    );
    if (awake.length === 0) return;
    const running = awake.filter(({ status }) => status === 'running').slice(0, AT_ONCE);
    await Promise.all(running.map(({ id }) => tryToPause(socket, id, tries, say)));
    if (running.length === 0) await sleep(VERB_POLL_MS);
  }
}

async function tryToPause(
  socket: string,
  id: string,
  tries: Map<string, number>,
  say: (text: string) => void,
): Promise<void> {
  const count = (tries.get(id) ?? 0) + 1;
  tries.set(id, count);
  try {
    await pauseSandbox(socket, id);
  } catch (error) {
    if (count === TRIES) say(`${id} can't be paused and goes on running: ${(error as Error).message}`);
    else await sleep(VERB_POLL_MS);
  }
}
