/** Where VMs run, and where they are going to. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Sandbox } from '@thaw/api';
import { assertNothingStray } from './builds.ts';
import { Figures } from './figures.ts';
import { eventually, type TestThaw } from './harness.ts';
import { allProcesses, type Traces } from './traces.ts';

export const VMM = 'qemu-system-x86_64';

/** Every VMM, those that wait included. */
export async function vmms(): Promise<number[]> {
  return (await allProcesses()).filter(({ program }) => program === VMM).map(({ pid }) => pid);
}

/** Which VMMs wait differs by what there was before. */
export function withoutVmms({ processes, sockets, ...traces }: Traces): Traces {
  const { [VMM]: _, ...others } = processes;
  return { ...traces, processes: others, sockets: sockets.filter((name) => !name.endsWith('/qmp.sock')) };
}

/** Asserts that there is no more than there was, VMMs that wait apart. */
export async function assertSame(thaw: TestThaw, before: Traces, message: string): Promise<void> {
  await placesReady(thaw);
  const same = (now: Traces) => isDeepStrictEqual(withoutVmms(now), before);
  assert.deepEqual(withoutVmms(await thaw.settledTraces(same)), before, message);
  assert.ok((await vmms()).length <= thaw.places, message);
  await eventually(() => assertNothingStray(thaw, message));
}

/** Whether the last start of the sandbox found a place, or made its own. */
export function tookPlace({ id, timings_ms }: Sandbox): boolean {
  const has = (name: string) => Object.keys(timings_ms ?? {}).some((label) => label.endsWith(name));
  const took = has(':limit-cgroup');
  assert.notEqual(took, has(':start-keeper'), id);
  return took;
}

/** Returns when all places wait that should, with the VMMs that should. */
export async function placesReady(thaw: TestThaw): Promise<void> {
  await eventually(async () => {
    const { body } = await thaw.api<string>('GET', '/metrics');
    const figures = new Figures(body);
    const count = (state: string) => figures.sum('thaw_places', { state });
    assert.deepEqual([count('ready'), count('making')], [thaw.places, 0], thaw.log());
  });
}

/** The traces with as many sandboxes running, once so many slots wait (THAW_SLOT_POOL), and the places. */
export async function fullTraces(thaw: TestThaw, slots: number, sandboxes = 0): Promise<Traces> {
  await placesReady(thaw);
  // The internet has a namespace too.
  const count = 1 + slots + thaw.places + sandboxes;
  const found = await thaw.settledTraces(({ namespaces }) => namespaces === count);
  assert.equal(found.namespaces, count, thaw.log());
  return found;
}

/** The name of a sandbox's VM: of its run folder and its control group. */
export async function vmOf(thaw: TestThaw, id: string): Promise<string> {
  const record = await readFile(path.join(thaw.data, 'sandboxes', id, 'sandbox.json'), 'utf8');
  return (JSON.parse(record) as { vm?: string }).vm ?? id;
}
