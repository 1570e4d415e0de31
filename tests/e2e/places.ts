/** Where VMs run, and where they are going to. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Figures } from './figures.ts';
import { eventually, type TestThaw } from './harness.ts';
import type { Traces } from './traces.ts';

/** Returns when all places wait that should. */
export async function placesReady(thaw: TestThaw): Promise<void> {
  await eventually(async () => {
    const { body } = await thaw.api<string>('GET', '/metrics');
    assert.equal(new Figures(body).sum('thaw_places', { state: 'ready' }), thaw.places, thaw.log());
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
