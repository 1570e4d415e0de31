import assert from 'node:assert/strict';
import type { SandboxError } from 'e2b';
import { type Cases, fails } from './stage.ts';

/** Well formed, and nobody's. */
const ABSENT = 'i0000000000000000000';
const WRONG_KEY = `e2b_${'0'.repeat(40)}`;

export const errors: Cases = {
  'errors/key': async ({ sdk, shared }) => {
    const { sandboxId } = await shared();
    const apiKey = WRONG_KEY;
    const { Sandbox } = sdk;
    await fails(Sandbox.create({ apiKey }), 'AuthenticationError');
    await fails(Sandbox.list({ apiKey }).nextItems(), 'AuthenticationError');
    await fails(Sandbox.getInfo(sandboxId, { apiKey }), 'AuthenticationError');
    await fails(Sandbox.connect(sandboxId, { apiKey }), 'AuthenticationError');
    await fails(Sandbox.kill(sandboxId, { apiKey }), 'AuthenticationError');
    await fails(Sandbox.pause(sandboxId, { apiKey }), 'AuthenticationError');
    await fails(Sandbox.setTimeout(sandboxId, 1000, { apiKey }), 'AuthenticationError');
    await fails(Sandbox.createSnapshot(sandboxId, { apiKey }), 'AuthenticationError');
    await fails(Sandbox.fork(sandboxId, { apiKey }), 'AuthenticationError');
  },

  'errors/absent': async ({ sdk }) => {
    const { Sandbox } = sdk;
    const absent = [
      () => Sandbox.getInfo(ABSENT),
      () => Sandbox.connect(ABSENT),
      () => Sandbox.pause(ABSENT),
      () => Sandbox.setTimeout(ABSENT, 1000),
      () => Sandbox.getMetrics(ABSENT),
      () => Sandbox.createSnapshot(ABSENT),
      () => Sandbox.fork(ABSENT),
      () => Sandbox.updateNetwork(ABSENT, {}),
      () => Sandbox.getInfo('Not/An:Id'),
    ];
    for (const call of absent) await fails(call(), 'SandboxNotFoundError');
    assert.equal(await Sandbox.kill(ABSENT), false);
    assert.equal(await Sandbox.deleteSnapshot('no-such-snapshot'), false);
    assert.equal(await Sandbox.deleteSnapshot('team/no-such:tag'), false);
    const template = (await fails(Sandbox.create('no-such-template'), 'SandboxError')) as SandboxError;
    assert.equal(template.statusCode, 404);
    assert.match(template.message, /no-such-template/);
  },

  'errors/refused': async ({ sdk, create }) => {
    const { Sandbox } = sdk;
    const status = async (call: Promise<unknown>) =>
      ((await fails(call, 'SandboxError')) as SandboxError).statusCode;
    assert.equal(await status(create({ timeoutMs: 0 })), 400);
    assert.equal(await status(create({ timeoutMs: 10 ** 12 })), 400);
    assert.equal(await status(create({ network: { denyOut: ['not an address'] } })), 400);
    assert.equal(await status(Sandbox.list({ limit: 0 }).nextItems()), 400);
    assert.equal(await status(Sandbox.list({ nextToken: 'made up' }).nextItems()), 400);
    assert.equal(await status(Sandbox.list({ query: { template: 'base:tag' } }).nextItems()), 400);
    const sandbox = await create();
    const used = await sandbox.createSnapshot();
    const spawned = await create({ template: used.snapshotId });
    assert.equal(await status(Sandbox.deleteSnapshot(used.snapshotId)), 400);
    await spawned.kill();
    await sandbox.kill();
    assert.equal(await Sandbox.deleteSnapshot(used.snapshotId), true);
  },

  'errors/quota': async ({ sdk, keep }) => {
    // A key of a team that may have one sandbox.
    const apiKey = process.env.THAW_TEST_POOR_KEY;
    assert.ok(apiKey);
    const one = keep(await sdk.Sandbox.create({ apiKey }));
    const refused = await fails(sdk.Sandbox.create({ apiKey }), 'RateLimitError');
    assert.ok(refused instanceof sdk.RateLimitError);
    await one.kill();
    await keep(await sdk.Sandbox.create({ apiKey })).kill();
  },

  'errors/unsupported': async ({ sdk, create }) => {
    // Each says so, none of them is ignored.
    await fails(create({ volumeMounts: { '/data': 'volume' } }), 'SandboxError');
    await fails(
      create({ iam: { tokens: { aws: { audience: 'x', tokenType: 'JWT-SVID' } } } }),
      'SandboxError',
    );
    await fails(create({ mcp: {} }), 'SandboxError');
    const egressProxy = { address: 'proxy.example.com:1080' };
    await fails(create({ network: { egressProxy } }), 'SandboxError');
    const rules = { 'example.com': [{ transform: { headers: { 'X-Own': 'value' } } }] };
    await fails(create({ network: { rules } }), 'SandboxError');
    await fails(sdk.Volume.create('volume'), 'VolumeError');
    await fails(sdk.Secret.create('secret', 'value'), 'SecretError');
    await fails(sdk.Template.build(sdk.Template().fromBaseImage(), 'name', {}), 'BuildError');
  },
};
