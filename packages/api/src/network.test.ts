import assert from 'node:assert/strict';
import { test } from 'node:test';
import { domainsHold, isDomain, isSpecial, NetworkWish, networkPolicy, splitDomains } from './network.ts';

test('domains are told from addresses and from what is neither', () => {
  const long = 'a'.repeat(63);
  for (const text of [
    'example.com',
    '*.example.com',
    'a.b-c.d1.io',
    '_dmarc.example.org',
    'xn--bcher-kva.example',
    `${long}.com`,
  ]) {
    assert.ok(isDomain(text), text);
  }
  for (const text of [
    '',
    '*',
    '*.',
    'com',
    '*.com',
    'example.com.',
    '.example.com',
    'a..b.com',
    '-a.com',
    'a-.com',
    'a.*.com',
    '*a.com',
    '*.*.com',
    '1.2.3.4',
    '1.2.3',
    '256.1.1.1',
    '1.2.3.4/24',
    'a b.com',
    'exämple.com',
    'Example.com',
    'http://example.com',
    'example.com:443',
    `${long}a.com`,
    `${`${long}.`.repeat(4)}com`,
  ]) {
    assert.ok(!isDomain(text), text);
  }
  assert.deepEqual(splitDomains(['192.0.2.1', '*.a.com', 'b.com', '198.51.100.0/24']), {
    domains: ['*.a.com', 'b.com'],
    ranges: ['192.0.2.1', '198.51.100.0/24'],
  });
});

test('domains hold only where all else is closed', () => {
  const policy = { internet: true, allow_out: ['a.com'], deny_out: [] as string[] };
  assert.ok(!domainsHold(policy));
  assert.ok(!domainsHold({ ...policy, deny_out: ['0.0.0.0/1', '192.0.2.0/24'] }));
  assert.ok(domainsHold({ ...policy, deny_out: ['192.0.2.0/24', '0.0.0.0/0'] }));
  assert.ok(domainsHold({ ...policy, internet: false }));
  assert.ok(domainsHold({ ...policy, allow_out: ['192.0.2.1'] }));
});

test('a wish with domains becomes a policy, or says what is wrong with it', () => {
  const wish = { allow_out: ['*.Example.COM', '192.0.2.0/24'], dns_servers: ['192.0.2.53'] };
  assert.deepEqual(networkPolicy(NetworkWish.parse(wish)), {
    internet: false,
    allow_out: ['*.example.com', '192.0.2.0/24'],
    deny_out: [],
    dns_servers: ['192.0.2.53'],
  });
  assert.deepEqual(networkPolicy(NetworkWish.parse({})), { internet: true, allow_out: [], deny_out: [] });
  const wrong: [unknown, RegExp][] = [
    [{ internet: true, allow_out: ['a.com'] }, /only with "internet": false/],
    [{ deny_out: ['a.com'] }, /must be an IPv4 address/],
    [{ allow_out: ['localhost'] }, /or a domain like/],
    [{ allow_out: ['10.0.0.0/24'] }, /special range/],
    [{ allow_out: ['a.com'], dns_servers: ['169.254.169.254'] }, /special range/],
    [{ allow_out: ['a.com'], dns_servers: ['::1'] }, /IPv4/],
    [{ allow_out: ['a.com'], dns_servers: Array(11).fill('192.0.2.53') }, /10/],
    [{ allow_out: ['192.0.2.1'], dns_servers: ['192.0.2.53'] }, /only with domains/],
  ];
  for (const [input, message] of wrong) {
    const { success, error } = NetworkWish.safeParse(input);
    assert.ok(!success, JSON.stringify(input));
    assert.match(error.issues[0]?.message ?? '', message);
  }
});

test('special is what lies wholly in a special range', () => {
  for (const text of ['10.1.2.3', '169.254.169.254', '100.64.0.0/10', '224.0.0.1'])
    assert.ok(isSpecial(text), text);
  for (const text of ['203.0.113.1', '0.0.0.0/0', '11.0.0.0']) assert.ok(!isSpecial(text), text);
});
