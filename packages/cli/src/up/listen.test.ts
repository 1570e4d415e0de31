import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hostAndPort, requireSafeListen, tlsFiles } from './listen.ts';

const plain = { setting: 'THAW_LISTEN', tls: undefined, insecure: false };

test('clear text is for this machine alone', () => {
  for (const listen of ['127.0.0.1:8080', '127.9.9.9:1', '[::1]:8080', 'localhost:0'])
    requireSafeListen({ ...plain, listen });
  for (const listen of [
    '0.0.0.0:8080',
    '[::]:8080',
    '192.0.2.1:80',
    '127.0.0.1.example.org:80',
    'example:443',
  ])
    assert.throws(() => requireSafeListen({ ...plain, listen }), /clear text/);
  for (const listen of ['nonsense', ':80', '127.0.0.1:', '127.0.0.1:port'])
    assert.throws(() => requireSafeListen({ ...plain, listen }), /HOST:PORT/);
  requireSafeListen({ ...plain, listen: '0.0.0.0:8080', insecure: true });
  requireSafeListen({ ...plain, listen: '0.0.0.0:8080', tls: { cert: '/c', key: '/k' } });
  const proxy = { ...plain, setting: 'THAW_PROXY_LISTEN', listen: '0.0.0.0:8081' };
  assert.throws(() => requireSafeListen(proxy), /THAW_PROXY_LISTEN is .*THAW_PROXY_TLS_LISTEN/);
});

test('certificate and key go together', () => {
  assert.equal(tlsFiles(undefined, undefined), undefined);
  assert.deepEqual(tlsFiles('/c', '/k'), { cert: '/c', key: '/k' });
  assert.throws(() => tlsFiles('/c', undefined), /go together/);
  assert.throws(() => tlsFiles(undefined, '/k'), /go together/);
});

test("an address keeps its port where that is the protocol's own", () => {
  assert.equal(hostAndPort('https://0.0.0.0:443'), '0.0.0.0:443');
  assert.equal(hostAndPort('http://127.0.0.1:80'), '127.0.0.1:80');
  assert.equal(hostAndPort('http://[::1]:8080'), '[::1]:8080');
});
