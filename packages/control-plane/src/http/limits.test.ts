import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { type Answer, TestPlane } from '../testing.ts';

const pairs = (count: number, value = 'v') =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, value]));

describe('limits', () => {
  let test: TestPlane;
  let id: string;
  before(async () => {
    test = await TestPlane.start();
    id = await test.createSandbox();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const refused = ({ status, body }: Answer, expected: number, field: string) => {
    const code = { 400: 'invalid_request', 404: 'not_found', 413: 'too_large' }[expected];
    assert.equal(status, expected, `${field}: ${JSON.stringify(body)}`);
    assert.equal(body.error.code, code);
    assert.ok(body.error.message.length < 1000, 'a message says what is wrong, not all that was sent');
  };

  it('of what a sandbox is made with', async () => {
    const wishes: [string, object, object][] = [
      ['metadata', { metadata: pairs(64) }, { metadata: pairs(65) }],
      ['metadata', { metadata: { k: 'v'.repeat(4096) } }, { metadata: { k: 'v'.repeat(4097) } }],
      ['metadata', { metadata: pairs(4, 'v'.repeat(4000)) }, { metadata: pairs(5, 'v'.repeat(4000)) }],
      ['metadata', { metadata: { ['k'.repeat(128)]: 'v' } }, { metadata: { ['k'.repeat(129)]: 'v' } }],
      ['env', { env: pairs(256) }, { env: pairs(257) }],
      ['env', { env: { k: 'v'.repeat(32_768) } }, { env: { k: 'v'.repeat(32_769) } }],
      ['env', { env: { ['k'.repeat(256)]: 'v' } }, { env: { ['k'.repeat(257)]: 'v' } }],
      ['vcpus', { vcpus: 8 }, { vcpus: 33 }],
      ['memory_mb', { memory_mb: 128 }, { memory_mb: 127 }],
      ['disk_mb', { disk_mb: 65_536 }, { disk_mb: 65_537 }],
      ['template', {}, { template: 'x'.repeat(64) }],
      ['network', {}, { network: { allow_out: Array.from({ length: 300 }, () => '203.0.113.1') } }],
    ];
    for (const [field, fits, wrong] of wishes) {
      const answer = await test.ask('POST', '/v1/sandboxes', fits);
      assert.equal(answer.status, 201, `${field}: ${JSON.stringify(answer.body)}`);
      await test.ask('DELETE', `/v1/sandboxes/${answer.body.id}`);
      const before = test.agent.count('createSandbox');
      refused(await test.ask('POST', '/v1/sandboxes', wrong), 400, field);
      assert.equal(test.agent.count('createSandbox'), before);
    }
    for (const number of ['1e400', '-1', '1.5', '"1"', '9007199254740993', 'null', '[]'])
      refused(await test.ask('POST', '/v1/sandboxes', `{"vcpus":${number}}`), 400, number);
  });

  it('of what a command is started with', async () => {
    const exec = (body: object) => test.ask('POST', `/v1/sandboxes/${id}/exec`, body);
    assert.equal((await exec({ cmd: 'true', args: Array(4096).fill('') })).status, 200);
    refused(await exec({ cmd: 'true', args: Array(4097).fill('') }), 400, 'args');
    refused(await exec({ cmd: 'x'.repeat(131_073) }), 400, 'cmd');
    refused(await exec({ cmd: '' }), 400, 'cmd');
    refused(await exec({ cmd: 'true', cwd: `/${'x'.repeat(4096)}` }), 400, 'cwd');
    refused(await exec({ cmd: 'true', user: 'u'.repeat(65) }), 400, 'user');
    refused(await exec({ cmd: 'true', env: pairs(257) }), 400, 'env');
    refused(await exec({ cmd: 'true', timeout_sec: 86_401 }), 400, 'timeout_sec');
    refused(await exec({ cmd: 'cat', stdin: 'x'.repeat(2 ** 20) }), 413, 'stdin');
  });

  it('of names and ids in paths', async () => {
    for (const name of ['x'.repeat(64), 'x'.repeat(250), 'x'.repeat(300), 'x'.repeat(8000)]) {
      for (const [method, path] of [
        ['GET', `/v1/sandboxes/${name}`],
        ['POST', `/v1/sandboxes/${name}/pause`],
        ['DELETE', `/v1/snapshots/${name}`],
        ['DELETE', `/v1/keys/${name}`],
      ] as const) {
        const { status } = await test.ask(method, path);
        assert.ok(status === 404 || status === 400 || status === 414, `${method} ${name.length}: ${status}`);
      }
    }
    refused(await test.ask('POST', '/v1/keys', { name: 'x'.repeat(65) }), 400, 'name');
  });

  it('of lists and their filters', async () => {
    for (const query of [
      'limit=1001',
      'limit=0',
      'limit=x',
      `next_token=${'x'.repeat(257)}`,
      `status=${'running,'.repeat(40)}`,
      `template=${'x'.repeat(64)}`,
      `metadata=${encodeURIComponent(`k=${'v'.repeat(4097)}`)}`,
      'nosuch=1',
    ])
      refused(await test.ask('GET', `/v1/sandboxes?${query}`), 400, query.slice(0, 20));
    assert.equal((await test.ask('GET', '/v1/sandboxes?limit=1000')).status, 200);
  });

  it('of bodies, however they are made', async () => {
    const post = (body: string) => test.ask('POST', '/v1/sandboxes', body);
    refused(await post(' '.repeat(2 ** 20 + 1)), 413, 'spaces');
    refused(await post('['.repeat(500_000)), 400, 'depth');
    refused(
      await post(`{"metadata":${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}}`),
      400,
      'depth of objects',
    );
    refused(
      await post(`{"env":{${Array.from({ length: 60_000 }, (_, i) => `"k${i}":""`).join()}}}`),
      400,
      'keys',
    );
    refused(await post(`{"__proto__":{"vcpus":1}}`), 400, '__proto__');
    refused(await post(`"${'x'.repeat(1000)}"`), 400, 'text');
    assert.equal((await test.ask('GET', '/healthz')).status, 200);
  });

  it('of headers', async () => {
    const { hostname, port } = new URL(test.url);
    for (const lines of [
      `X-API-Key: ${'x'.repeat(20_000)}`,
      Array.from({ length: 3000 }, (_, index) => `x${index}: y`).join('\r\n'),
    ]) {
      const socket = connect(Number(port), hostname);
      await once(socket, 'connect');
      socket.on('error', () => {});
      socket.write(`GET /v1/sandboxes HTTP/1.1\r\nHost: x\r\n${lines}\r\n\r\n`);
      assert.match(await text(socket), /^HTTP\/1.1 4(31|01|00) /);
    }
    const long = await test.ask('GET', '/v1/sandboxes', undefined, { 'X-API-Key': 'x'.repeat(10_000) });
    assert.equal(long.status, 401);
  });
});
