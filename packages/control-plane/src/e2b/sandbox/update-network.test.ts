import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import { type Answer, TestPlane } from '../../testing.ts';

describe('the network of the E2B API', () => {
  let test: TestPlane;
  let id: string;
  before(async () => {
    test = await TestPlane.start();
    id = await test.createSandbox();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const put = (body: unknown): Promise<Answer> => test.ask('PUT', `/sandboxes/${id}/network`, body);
  const onHost = () => {
    const { internet, allowOut, denyOut, allowDomains, dnsServers } = test.agent.sandboxes.get(id)!.network!;
    return { internet, allowOut, denyOut, allowDomains, dnsServers };
  };
  const open = { internet: true, allowOut: [], denyOut: [], allowDomains: [], dnsServers: [] };

  it('is replaced whole, on the host before the answer', async () => {
    const answer = await put({ denyOut: ['203.0.113.7/24'], allowOut: ['203.0.113.9', '198.51.100.0/24'] });
    assert.deepEqual([answer.status, answer.body], [204, '']);
    assert.deepEqual(onHost(), {
      ...open,
      allowOut: ['203.0.113.9', '198.51.100.0/24'],
      denyOut: ['203.0.113.0/24'],
    });
    const detail = (await test.ask('GET', `/sandboxes/${id}`)).body;
    assert.deepEqual(
      [detail.network.allowOut, detail.network.denyOut, detail.allowInternetAccess],
      [['203.0.113.9', '198.51.100.0/24'], ['203.0.113.0/24'], null],
    );
    assert.equal((await put({ allow_internet_access: false })).status, 204);
    assert.deepEqual(onHost(), { ...open, internet: false });
    assert.equal((await test.ask('GET', `/sandboxes/${id}`)).body.allowInternetAccess, false);
    assert.equal((await put({ egressProxy: null, rules: {}, allowOut: null })).status, 204);
    assert.deepEqual(onHost(), open);
  });

  it('opens domains where all else is closed', async () => {
    const domains = { allowOut: ['Example.com', '*.example.org', '203.0.113.9'], denyOut: ['0.0.0.0/0'] };
    assert.equal((await put({ ...domains, dnsServers: ['9.9.9.9'] })).status, 204);
    assert.deepEqual(onHost(), {
      ...open,
      ...{ allowOut: ['203.0.113.9'], denyOut: ['0.0.0.0/0'] },
      ...{ allowDomains: ['example.com', '*.example.org'], dnsServers: ['9.9.9.9'] },
    });
    assert.equal((await put({ allowOut: ['example.com'], allow_internet_access: false })).status, 204);
    assert.equal((await put({ allowOut: ['example.com'] })).status, 400);
    assert.equal((await put({ allowOut: ['example.com'], denyOut: ['203.0.113.0/24'] })).status, 400);
  });

  it('refuses what makes no sense and what Thaw has not, and changes nothing then', async () => {
    assert.equal((await put({})).status, 204);
    const calls = test.agent.count('setNetwork');
    for (const body of [
      { denyOut: ['example.com'] },
      { denyOut: ['x'] },
      { denyOut: ['::/0'] },
      { allowOut: ['300.1.1.1'] },
      { allowOut: ['10.0.0.1'] },
      { allowOut: ['203.0.113.0/33'] },
      { allowOut: 'all' },
      { dnsServers: ['::1'] },
      { dnsServers: ['10.0.0.1'] },
      { dnsServers: ['9.9.9.9'], denyOut: ['0.0.0.0/0'] },
      { dnsServers: ['dns.example'] },
      { dnsServers: Array(11).fill('9.9.9.9') },
      { egressProxy: { address: '203.0.113.1:1080' } },
      { rules: { 'example.com': [{ transform: { headers: { a: 'b' } } }] } },
      { allow_internet_access: 'no' },
    ]) {
      const { status, body: told } = await put(body);
      assert.deepEqual([status, told.code], [400, 400], JSON.stringify(body));
    }
    assert.equal(test.agent.count('setNetwork'), calls);
    const missing = await test.ask('PUT', '/sandboxes/sbaaaaaaaaaaaaaaaaaaaa/network', {});
    assert.equal(missing.status, 404);
    test.agent.failNext('setNetwork', new ThawError('unavailable', 'busy'));
    assert.equal((await put({ allow_internet_access: false })).status, 503);
    assert.equal((await test.ask('GET', `/sandboxes/${id}`)).body.allowInternetAccess, null);
  });

  it('of a paused sandbox holds from its next start on', async () => {
    await test.ask('POST', `/v1/sandboxes/${id}/pause`);
    assert.equal((await put({ allow_internet_access: false })).status, 204);
    await test.ask('POST', `/v1/sandboxes/${id}/resume`);
    assert.deepEqual(onHost(), { ...open, internet: false });
    await test.ask('DELETE', `/sandboxes/${id}`);
    assert.equal((await put({})).status, 404);
  });
});
