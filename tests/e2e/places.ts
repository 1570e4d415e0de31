/** Where VMs run, and where they are going to. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { SANDBOX_STATUSES } from '@thaw/api';
import { Figures } from './figures.ts';
import { eventually, type TestThaw } from './harness.ts';
import type { Traces } from './traces.ts';

const HERE = SANDBOX_STATUSES.filter((status) => status !== 'stopped');

/** Returns when all places wait that should, half of them with a VMM if there is a sandbox that it may be for. */
export async function placesReady(thaw: TestThaw): Promise<void> {
  await eventually(async () => {
    const [sandbox] = await Array.fromAsync(thaw.sdk.sandboxes.list({ status: HERE }));
    const { body } = await thaw.api<string>('GET', '/metrics');
    const figures = new Figures(body);
    const count = (state: string) => figures.sum('thaw_places', { state });
    const waiting = sandbox === undefined ? 0 : Math.ceil(thaw.places / 2);
    const found = [count('ready'), count('waiting'), count('making')];
    assert.deepEqual(found, [thaw.places, waiting, 0], thaw.log());
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
