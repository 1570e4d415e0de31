import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Openings } from './openings.ts';

const add = (openings: Openings, domains: string[], addresses: string[], ttlSec = 60): string => {
  const change = openings.open(domains, addresses, ttlSec);
  assert.ok(change);
  change.commit();
  return change.statements.join('\n');
};

test('an address is opened for its time, and no statement is made for what is open for long enough', () => {
  const openings = new Openings('t', 'l');
  const first = add(openings, ['a.com'], ['192.0.2.1', '192.0.2.1']);
  assert.match(first, /add element inet t resolved \{ "l" \. 192\.0\.2\.1 timeout 60s \}/);
  assert.match(first, /add element inet t lingering \{ "l" \. 192\.0\.2\.1 \}/);
  assert.equal(add(openings, ['b.com'], ['192.0.2.1'], 59), '');
  const longer = add(openings, ['a.com'], ['192.0.2.1', '192.0.2.2'], 90);
  assert.match(longer, /192\.0\.2\.1 timeout 90s, "l" \. 192\.0\.2\.2 timeout 90s/);
  assert.match(longer, /lingering \{ "l" \. 192\.0\.2\.2 \}/);
});

test('what is planned and not taken counts for nothing', () => {
  const openings = new Openings('t', 'l');
  openings.open(['a.com'], ['192.0.2.1'], 60);
  assert.deepEqual(openings.keep([]).statements, []);
});

test('an address goes with the last domain that opened it', () => {
  const openings = new Openings('t', 'l');
  add(openings, ['a.com', '*.com'], ['192.0.2.1']);
  add(openings, ['b.com'], ['192.0.2.1', '192.0.2.2']);
  const keep = (domains: string[]) => {
    const change = openings.keep(domains);
    change.commit();
    return change.statements.filter((statement) => statement.startsWith('delete'));
  };
  assert.deepEqual(keep(['*.com', 'b.com']), []);
  assert.match(keep(['*.com', 'c.com']).join(), /resolved \{ "l" \. 192\.0\.2\.2 \}/);
  assert.match(keep(['a.com', 'b.com']).join(), /resolved \{ "l" \. 192\.0\.2\.1 \}/);
  assert.deepEqual(keep([]), []);
});

test('of too many the ones go whose time is over, and open ones never', () => {
  const openings = new Openings('t', 'l');
  const range = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => `198.51.${(from + i) >> 8}.${(from + i) & 255}`);
  add(openings, ['a.com'], range(0, 10), -10);
  add(openings, ['a.com'], range(10, 1014));
  assert.match(add(openings, ['a.com'], range(2000, 4)), /delete element inet t lingering/);
  add(openings, ['a.com'], range(2004, 6));
  assert.equal(openings.open(['a.com'], range(3000, 1), 60), undefined);
  assert.equal(add(openings, ['a.com'], range(10, 5), 50), '');
});

test('what an earlier process opened keeps its time, and belongs to no domain', () => {
  const openings = new Openings('t', 'l');
  const statements = openings.restore([
    { address: '192.0.2.1', leftSec: 12 },
    { address: '192.0.2.2', leftSec: 0 },
  ]);
  assert.match(statements.join('\n'), /lingering \{ "l" \. 192\.0\.2\.1, "l" \. 192\.0\.2\.2 \}/);
  assert.match(statements.join('\n'), /resolved \{ "l" \. 192\.0\.2\.1 timeout 12s \}/);
  assert.equal(openings.keep(['a.com']).statements.length, 4);
});
