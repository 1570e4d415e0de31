import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isAbove, isHostName, matching } from './name.ts';

test('a name falls under itself and under wildcards above it', () => {
  const domains = ['example.com', '*.example.com', '*.b.example.com', 'x.org'];
  const cases: [string, string[]][] = [
    ['example.com', ['example.com']],
    ['a.example.com', ['*.example.com']],
    ['a.b.example.com', ['*.example.com', '*.b.example.com']],
    ['.example.com', []],
    ['badexample.com', []],
    ['example.com.evil.net', []],
    ['a.x.org', []],
    ['org', []],
  ];
  for (const [name, expected] of cases) assert.deepEqual(matching(domains, name), expected, name);
});

test('names above a domain are there', () => {
  const domains = ['*.b.example.com', 'x.org'];
  for (const name of ['com', 'example.com', 'b.example.com', 'org']) assert.ok(isAbove(domains, name), name);
  for (const name of ['net', 'ample.com', 'x.org', 'a.b.example.com'])
    assert.ok(!isAbove(domains, name), name);
});

test('only ASCII names of hosts count, so that lower case is the same everywhere', () => {
  for (const name of ['a', 'A-1.b_c', `${'a'.repeat(63)}.com`]) assert.ok(isHostName(name), name);
  for (const name of [
    '',
    '.',
    'a.',
    'a..b',
    'a b',
    'exämple.com',
    '\u212Aexample.com',
    'a\0b',
    'a*',
    `${'a'.repeat(64)}.com`,
  ]) {
    assert.ok(!isHostName(name), name);
  }
});
