/** The cases that every writer and reader of the format must agree on, whatever the file holds. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  createHeader,
  type Entry,
  type Header,
  lookup,
  parseHeader,
  type Run,
  SnapshotFormatError,
  serialiseHeader,
  storedBytes,
  ZERO_FILL,
} from './index.ts';

interface Generation {
  build: string;
  generation: number;
  states: string;
  stored_bytes: number;
  mapping: [number, number, string, number][];
  header_hex: string;
}

interface Case {
  name: string;
  block_size: number;
  size: number;
  generations: Generation[];
  lookups: { offset: number; build: string; storage_offset: number | null; remaining: number }[];
}

const file = new URL('../../../spec/vectors/snapshot-header.json', import.meta.url);
const vectors: { cases: Case[]; invalid: { why: string; hex: string }[] } = JSON.parse(
  readFileSync(file, 'utf8'),
);

function runsOf(states: string, blockSize: number): Run[] {
  const kinds = { D: 'stored', '0': 'zero' } as const;
  const runs: Run[] = [];
  for (const [block, state] of [...states].entries()) {
    if (state === 'D' || state === '0') {
      runs.push({ offset: block * blockSize, length: blockSize, kind: kinds[state] });
    } else {
      assert.equal(state, '.');
    }
  }
  return runs;
}

function entryOf([offset, length, build, storageOffset]: Generation['mapping'][number]): Entry {
  return { offset, length, build, storageOffset };
}

test('the file holds cases', () => {
  assert.ok(vectors.cases.length > 0 && vectors.invalid.length > 0);
});

for (const { name, block_size: blockSize, size, generations, lookups } of vectors.cases) {
  test(`${name}: bytes, mapping and lookups`, () => {
    let parent: Header | undefined;
    for (const generation of generations) {
      const runs = runsOf(generation.states, blockSize);
      const header = createHeader({
        build: generation.build,
        size,
        blockSize,
        runs,
        layout: 'packed',
        parent,
      });
      assert.equal(storedBytes(runs), generation.stored_bytes);
      assert.equal(header.generation, generation.generation);
      assert.deepEqual(header.entries, generation.mapping.map(entryOf));
      const bytes = serialiseHeader(header);
      assert.equal(bytes.toString('hex'), generation.header_hex);
      assert.deepEqual(parseHeader(bytes), header);
      parent = header;
    }
    assert.ok(parent);
    for (const expected of lookups) {
      const { build, storageOffset, remaining } = lookup(parent, expected.offset);
      assert.deepEqual(
        { offset: expected.offset, build, storage_offset: storageOffset, remaining },
        expected,
      );
      assert.equal(build === ZERO_FILL, storageOffset === null);
    }
    assert.throws(() => lookup(parent!, size), SnapshotFormatError);
  });
}

for (const { why, hex } of vectors.invalid) {
  test(`refused: ${why}`, () => {
    assert.throws(() => parseHeader(Buffer.from(hex, 'hex')), SnapshotFormatError);
  });
}
