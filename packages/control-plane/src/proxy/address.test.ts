import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { addressOf, isInternalPath } from './address.ts';
import { isOver, isSignedWith, signedOf } from './signature.ts';

const none = {};

test('a host tells which port of which sandbox', () => {
  for (const [host, sandboxId, port] of [
    ['3000-sbabc.example.org', 'sbabc', 3000],
    ['3000-SBABC.Example.org:8443', 'sbabc', 3000],
    ['1-i0.localhost', 'i0', 1],
    ['65535-a.b.c.d', 'a', 65_535],
    ['80-abc-more-of-it.example.org', 'abc', 80],
  ] as const)
    assert.deepEqual(addressOf(host, none), { kind: 'address', address: { sandboxId, port } }, host);
  for (const host of [
    '',
    'example.org',
    '3000-abc',
    '3000.abc.example.org',
    'abc-3000.example.org',
    '0-abc.example.org',
    '65536-abc.example.org',
    '-abc.example.org',
    '3000-.example.org',
    '3000-a_b.example.org',
    '3000-abc.example.org/x',
    'a b.example.org',
    '[::1',
  ])
    assert.equal(addressOf(host, none).kind, 'bad', host);
});

test('headers tell where the host is shared, and only there', () => {
  const headers = { 'e2b-sandbox-id': 'abc', 'e2b-sandbox-port': '80' };
  const address = { kind: 'address', address: { sandboxId: 'abc', port: 80 } };
  for (const host of [
    'localhost',
    'LOCALHOST:1',
    '127.0.0.1',
    '10.0.0.1:80',
    '[::1]',
    '[fe80::1]:9',
    'sandbox.x.y:1',
  ]) {
    assert.deepEqual(addressOf(host, headers), address, host);
    assert.equal(addressOf(host, none).kind, 'shared', host);
    assert.equal(addressOf(host, { 'e2b-sandbox-id': 'abc' }).kind, 'bad', host);
    assert.equal(addressOf(host, { 'e2b-sandbox-port': '80' }).kind, 'bad', host);
  }
  for (const host of ['sandbox', 'xsandbox.x', 'www.example.org', '127.0.0.1.example.org', 'localhost.x'])
    assert.equal(addressOf(host, headers).kind, 'bad', host);
  const other = addressOf('1-xyz.example.org', headers);
  assert.deepEqual(other, { kind: 'address', address: { sandboxId: 'xyz', port: 1 } });
});

test('no host and no header throws, or is taken for what it is not', () => {
  const piece = fc.oneof(
    fc.string(),
    fc.constantFrom('80', '-', '.', 'localhost', 'sandbox.', 'abc', ':', '[', ']', '::1'),
  );
  const host = fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join(''));
  const header = fc.option(fc.oneof(fc.string(), fc.nat().map(String)), { nil: undefined });
  fc.assert(
    fc.property(host, header, header, (name, id, port) => {
      const found = addressOf(name, { 'e2b-sandbox-id': id, 'e2b-sandbox-port': port });
      if (found.kind !== 'address') return;
      assert.match(found.address.sandboxId, /^[a-z0-9]+$/);
      assert.ok(
        Number.isInteger(found.address.port) && found.address.port >= 1 && found.address.port <= 65_535,
      );
    }),
    { numRuns: 5_000 },
  );
});

test("the host's own words to the agent are found however they are spelled", () => {
  for (const path of [
    '/init',
    '/init/',
    '//init',
    '/./init?x=y',
    '/x/../init',
    '/%69nit',
    '/%2569nit',
    '/INIT',
    '/init#x',
    '/init;a=b',
    '\\init',
    '/fsthaw',
    '/upgrade',
    '/init%2F',
  ])
    assert.ok(isInternalPath(path), path);
  for (const path of ['/', '/initial', '/files?path=/init', '/a/init', '/process.Process/List', '/%zz', '*'])
    assert.ok(!isInternalPath(path), path);
});

test('a signature is of its path, operation, user, token and end', () => {
  const token = '0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0';
  const signature = encodeURIComponent('v1_gUtH/s9YCJWgCizjfUxuWfhFE4QSydOWEIIvfLwDr6E');
  const good = `/files?path=hello.txt&username=user&signature=${signature}`;
  assert.ok(isSignedWith(signedOf('GET', good)!, token));
  assert.ok(isSignedWith(signedOf('HEAD', good)!, token));
  assert.ok(!isSignedWith(signedOf('POST', good)!, token));
  assert.ok(!isSignedWith(signedOf('GET', good)!, `${token}x`));
  assert.ok(!isSignedWith(signedOf('GET', good.replace('hello', 'hallo'))!, token));
  assert.ok(!isSignedWith(signedOf('GET', `${good}&signature_expiration=9`)!, token));
  assert.ok(isOver(signedOf('GET', `${good}&signature_expiration=9`)!));
  assert.ok(!isOver(signedOf('GET', good)!));
  for (const wrong of ['/files', '/files?path=x', '/files?signature=v1_short', '/filesx?signature=v1_', '/'])
    assert.equal(signedOf('GET', wrong), undefined, wrong);
  assert.equal(signedOf('DELETE', good), undefined);
});
