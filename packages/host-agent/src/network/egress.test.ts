import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressSpan } from '@thaw/api';
import { checkedEgress, disjoint, isOpen, OPEN_EGRESS } from './egress.ts';

test('ranges become intervals that do not overlap', () => {
  const cases: [string[], string[]][] = [
    [[], []],
    [['192.0.2.7'], ['192.0.2.7']],
    [['192.0.2.0/24'], ['192.0.2.0-192.0.2.255']],
    [['0.0.0.0/0', '192.0.2.0/24'], ['0.0.0.0-255.255.255.255']],
    // One in another, twice the same, side by side, apart.
    [['192.0.2.0/24', '192.0.2.9', '192.0.2.0/25'], ['192.0.2.0-192.0.2.255']],
    [['192.0.2.9', '192.0.2.9'], ['192.0.2.9']],
    [['192.0.2.128/25', '192.0.2.0/25', '192.0.3.0'], ['192.0.2.0-192.0.3.0']],
    [
      ['198.51.100.7', '192.0.2.1', '192.0.2.3'],
      ['192.0.2.1', '192.0.2.3', '198.51.100.7'],
    ],
  ];
  for (const [ranges, expected] of cases) assert.deepEqual(disjoint(ranges), expected, String(ranges));
});

test('what is no IPv4 range is refused', () => {
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '256.0.0.1',
    '1.2.3.4/33',
    '1.2.3.4/24',
    '::1',
    'a',
    ' 1.2.3.4',
  ]) {
    assert.equal(addressSpan(text), undefined, text);
    for (const lists of [
      { allowOut: [text], denyOut: [] },
      { allowOut: [], denyOut: [text] },
    ]) {
      assert.throws(() => checkedEgress({ ...OPEN_EGRESS, ...lists }), { kind: 'invalid_request' });
    }
  }
});

test('only what denies something is a limit', () => {
  assert.ok(isOpen({ ...OPEN_EGRESS, internet: true, allowOut: ['192.0.2.1'], denyOut: [] }));
  assert.ok(!isOpen({ ...OPEN_EGRESS, internet: false, allowOut: [], denyOut: [] }));
  assert.ok(!isOpen({ ...OPEN_EGRESS, internet: true, allowOut: [], denyOut: ['192.0.2.1'] }));
});

test('a sandbox asks no server of a special range, and only domains are names', () => {
  for (const wrong of [
    { dnsServers: ['10.0.0.53'] },
    { dnsServers: ['127.0.0.1'] },
    { dnsServers: ['dns.example'] },
    { dnsServers: Array<string>(11).fill('192.0.2.53') },
    { allowDomains: ['192.0.2.1'] },
    { allowDomains: ['*'] },
    { allowDomains: ['Example.com'] },
    { allowOut: ['example.com'] },
    { denyOut: ['example.com'] },
  ]) {
    const egress = { ...OPEN_EGRESS, internet: false, ...wrong };
    assert.throws(() => checkedEgress(egress), { kind: 'invalid_request' }, JSON.stringify(wrong));
  }
});
