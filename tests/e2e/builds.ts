/** What a Thaw keeps on disk for its sandboxes and templates, read by the formats of spec/formats.md. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { buildsOf, parseHeader } from '@thaw/snapshot';
import type { TestThaw } from './harness.ts';

type OwnerFolder = 'sandboxes' | 'templates' | 'boots';

/** The build that a head names. */
export async function headOf(
  thaw: TestThaw,
  kind: 'sandboxes' | 'templates' | 'boots',
  id: string,
): Promise<string> {
  const head = JSON.parse(await readFile(path.join(thaw.data, kind, id, 'head'), 'utf8'));
  return (head as { build: string }).build;
}

/** A build and all builds that its memory and disk are read from. */
export async function sourcesOf(thaw: TestThaw, build: string): Promise<Set<string>> {
  const sources = new Set([build]);
  for (const file of ['memfile.header', 'rootfs.header']) {
    const bytes = await readFile(path.join(thaw.data, 'builds', build, file)).catch(() => undefined);
    for (const source of bytes === undefined ? [] : buildsOf(parseHeader(bytes))) sources.add(source);
  }
  return sources;
}

/** Those that only a kept boot needs are left out: they come with any create. */
export async function buildNames(thaw: TestThaw): Promise<string[]> {
  const boots = await neededBy(thaw, ['boots']);
  const others = await neededBy(thaw, ['sandboxes', 'templates']);
  const names = await readdir(path.join(thaw.data, 'builds'));
  return names.filter((name) => !boots.has(name) || others.has(name)).toSorted();
}

async function neededBy(thaw: TestThaw, kinds: readonly OwnerFolder[]): Promise<Set<string>> {
  const needed = new Set<string>();
  for (const kind of kinds) {
    for (const id of await readdir(path.join(thaw.data, kind))) {
      for (const source of await sourcesOf(thaw, await headOf(thaw, kind, id))) needed.add(source);
    }
  }
  return needed;
}

/** Asserts that there are exactly the builds that heads need, and no more layers than running sandboxes have. */
export async function assertNothingStray(thaw: TestThaw, message = ''): Promise<void> {
  const needed = await neededBy(thaw, ['sandboxes', 'templates']);
  assert.deepEqual(await buildNames(thaw), [...needed].toSorted(), message);
  for (const id of await readdir(path.join(thaw.data, 'sandboxes'))) {
    const { status } = await thaw.sdk.sandboxes.get(id);
    const layers = await readdir(path.join(thaw.data, 'sandboxes', id, 'disk')).catch(() => []);
    const kinds = layers.map((name) => name.replace(/^\d+\./, '')).toSorted();
    assert.deepEqual(kinds, status === 'running' ? ['top', 'zeros'] : [], `${message}: layers of ${id}`);
  }
}
