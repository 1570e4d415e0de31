import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BLOCKS, blockOf, DEFAULT_RANGES, overlap, parseRange, slotAddresses } from './addresses.ts';

const slot = fc.record({ block: fc.nat(BLOCKS - 1), index: fc.integer({ min: 1, max: 2047 }) });

function addresses(value: { block: number; index: number }) {
  return slotAddresses(
    blockOf(`${value.block}`.padStart(6, '0'), value.block, DEFAULT_RANGES, 700_000),
    value.index,
  );
}

test('two slots share no name, address or user', () => {
  fc.assert(
    fc.property(slot, slot, (a, b) => {
      fc.pre(a.block !== b.block || a.index !== b.index);
      const [one, two] = [addresses(a), addresses(b)];
      const all = (s: typeof one) => [
        s.netns,
        s.link,
        s.linkAddress,
        s.innerAddress,
        s.hostAddress,
        ...Object.values(s.uids),
      ];
      assert.equal(new Set([...all(one), ...all(two)]).size, 16);
      assert.ok(one.link.length <= 15);
    }),
  );
});

test('ranges are read strictly', () => {
  assert.deepEqual(parseRange('10.11.0.0/16'), { base: 10 * 2 ** 24 + 11 * 2 ** 16, prefix: 16 });
  for (const wrong of ['10.11.0.0', '10.11.0.1/16', '256.0.0.0/8', '10.0.0.0/33', 'x', '::/0']) {
    assert.throws(() => parseRange(wrong), { kind: 'invalid_request' });
  }
  assert.ok(overlap(parseRange('10.0.0.0/8'), parseRange('10.11.16.0/20')));
  assert.ok(!overlap(parseRange('10.11.0.0/20'), parseRange('10.11.16.0/20')));
});
