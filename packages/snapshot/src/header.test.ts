/** The format against a model that keeps one answer per block, over several generations. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  createHeader,
  type Entry,
  type Header,
  lookup,
  normalise,
  parseHeader,
  parseRuns,
  type Run,
  SnapshotFormatError,
  serialiseHeader,
  serialiseRuns,
  ZERO_FILL,
} from './index.ts';

const BLOCK = 4096;
const BUILDS = Array.from({ length: 8 }, () => randomUUID());

/** Where a block's bytes are; null is zero fill. */
type Block = { build: string; place: number } | null;
type State = 'D' | '0' | '.';

interface Step {
  states: State[];
  layout: 'packed' | 'sparse';
}

function runsOf(states: readonly State[], joined: boolean): Run[] {
  const runs: Run[] = [];
  for (const [block, state] of states.entries()) {
    if (state === '.') continue;
    const kind = state === 'D' ? 'stored' : 'zero';
    const before = runs.at(-1);
    if (joined && before?.kind === kind && before.offset + before.length === block * BLOCK) {
      runs[runs.length - 1] = { ...before, length: before.length + BLOCK };
    } else {
      runs.push({ offset: block * BLOCK, length: BLOCK, kind });
    }
  }
  return runs;
}

function applyToModel(blocks: readonly Block[], { states, layout }: Step, build: string): Block[] {
  let packed = 0;
  return states.map((state, at) => {
    if (state === '.') return blocks[at] ?? null;
    if (state === '0') return null;
    return { build, place: layout === 'packed' ? packed++ : at };
  });
}

function mappingOf(blocks: readonly Block[]): Entry[] {
  const entries: Entry[] = [];
  for (const [at, block] of blocks.entries()) {
    const build = block?.build ?? ZERO_FILL;
    const storageOffset = (block?.place ?? 0) * BLOCK;
    const before = entries.at(-1);
    const same =
      before?.build === build && (block === null || before.storageOffset + before.length === storageOffset);
    if (before !== undefined && same)
      entries[entries.length - 1] = { ...before, length: before.length + BLOCK };
    else entries.push({ offset: at * BLOCK, length: BLOCK, build, storageOffset });
  }
  return entries;
}

const state = fc.constantFrom<State>('D', '0', '.');
const stretches = fc.array(fc.tuple(state, fc.integer({ min: 1, max: 12 })), { minLength: 1, maxLength: 12 });
const step = fc.record({
  stretches,
  layout: fc.constantFrom('packed' as const, 'sparse' as const),
  joined: fc.boolean(),
});

test('generations agree with the model; a grown child is zero beyond its parent', () => {
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 6 }), (steps) => {
      let blocks: Block[] = [];
      let header: Header | undefined;
      for (const [index, { stretches, layout, joined }] of steps.entries()) {
        const states = stretches.flatMap(([kind, length]) => Array<State>(length).fill(kind));
        while (states.length < blocks.length) states.push('.');
        const build = BUILDS[index]!;
        blocks = applyToModel(blocks, { states, layout }, build);
        const size = blocks.length * BLOCK;
        const runs = parseRuns(serialiseRuns(runsOf(states, joined)));
        header = createHeader({ build, size, blockSize: BLOCK, runs, layout, parent: header });
        assert.deepEqual(header.entries, mappingOf(blocks));
        assert.equal(header.generation, index);
        assert.equal(header.base, BUILDS[0]);
        assert.deepEqual(parseHeader(serialiseHeader(header)), header);
      }
      for (const [at, block] of blocks.entries()) {
        const found = lookup(header!, at * BLOCK + 17);
        assert.equal(found.build, block?.build ?? ZERO_FILL);
        assert.equal(found.storageOffset, block === null ? null : block.place * BLOCK + 17);
      }
    }),
    { numRuns: 300 },
  );
});

test('changed bytes are refused or are a header again, never a crash', () => {
  const runs: Run[] = [{ offset: BLOCK, length: BLOCK, kind: 'stored' }];
  const valid = serialiseHeader(
    createHeader({ build: BUILDS[0]!, size: 4 * BLOCK, blockSize: BLOCK, runs, layout: 'sparse' }),
  );
  const change = fc.tuple(fc.nat(valid.length - 1), fc.nat(255));
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), fc.nat(valid.length), (changes, length) => {
      const bytes = Buffer.from(valid);
      for (const [at, value] of changes) bytes[at] = value;
      for (const candidate of [bytes, bytes.subarray(0, length)]) {
        try {
          assert.deepEqual(serialiseHeader(parseHeader(candidate)), Buffer.from(candidate));
        } catch (error) {
          assert.ok(error instanceof SnapshotFormatError, String(error));
        }
      }
    }),
    { numRuns: 2000 },
  );
});

test('numbers above 2^53 are refused, not rounded', () => {
  const header = createHeader({
    build: BUILDS[0]!,
    size: BLOCK,
    blockSize: BLOCK,
    runs: [],
    layout: 'packed',
  });
  for (const [word, message] of [
    [0x0020_0000_0000_0001n, /generation is above 2\^53/],
    [0xffff_ffff_ffff_ffffn, /generation is above 2\^53/],
  ] as const) {
    const bytes = serialiseHeader(header);
    bytes.writeBigUInt64LE(word, 24);
    assert.throws(() => parseHeader(bytes), message);
  }
  const bytes = serialiseHeader(header);
  bytes.writeBigUInt64LE(0x0020_0000_0000_0000n, 24);
  assert.equal(parseHeader(bytes).generation, 2 ** 53);
});

test('runs that make no sense are refused', () => {
  const make = (runs: Run[], size = 8 * BLOCK) =>
    createHeader({ build: BUILDS[0]!, size, blockSize: BLOCK, runs, layout: 'packed' });
  const run = (offset: number, length: number): Run => ({ offset, length, kind: 'stored' });
  for (const runs of [
    [run(0, 0)],
    [run(1, BLOCK)],
    [run(0, 100)],
    [run(7 * BLOCK, 2 * BLOCK)],
    [run(9 * BLOCK, BLOCK)],
    [run(BLOCK, BLOCK), run(0, BLOCK)],
    [run(0, 2 * BLOCK), run(BLOCK, BLOCK)],
    [run(-BLOCK, BLOCK)],
    [run(Number.NaN, BLOCK)],
  ]) {
    assert.throws(() => make(runs), SnapshotFormatError, JSON.stringify(runs));
  }
  assert.throws(() => make([], 100), SnapshotFormatError);
  assert.throws(() => make([], 0), SnapshotFormatError);
  assert.throws(() => parseRuns(Buffer.alloc(23)), /truncated/);
  assert.throws(() => parseRuns(Buffer.alloc(24)), /run kind 0/);
});

test('a child can not be smaller than its parent', () => {
  const shape = { blockSize: BLOCK, runs: [], layout: 'sparse' } as const;
  const parent = createHeader({ ...shape, build: BUILDS[0]!, size: 4 * BLOCK });
  assert.throws(() => createHeader({ ...shape, build: BUILDS[1]!, size: BLOCK, parent }), /below the parent/);
});

test('entries are never joined across a gap', () => {
  const entry = (offset: number): Entry => ({
    offset,
    length: BLOCK,
    build: BUILDS[0]!,
    storageOffset: offset,
  });
  assert.throws(() => normalise([entry(0), entry(2 * BLOCK)]), /not contiguous/);
  assert.deepEqual(normalise([entry(0), entry(BLOCK)]), [{ ...entry(0), length: 2 * BLOCK }]);
});
