import assert from 'node:assert/strict';
import type { SandboxError } from 'e2b';
import { type Cases, fails } from './stage.ts';

const { THAW_TEST_BUSY = '', THAW_TEST_HUNG = '', THAW_TEST_FORKED = '' } = process.env;

export const trouble: Cases = {
  'trouble/busy': async ({ sdk }) => {
    const { Sandbox } = sdk;
    await fails(Sandbox.create(), 'ServiceBusyError');
    await fails(Sandbox.pause(THAW_TEST_BUSY), 'ServiceBusyError');
    await fails(Sandbox.createSnapshot(THAW_TEST_BUSY), 'ServiceBusyError');
    await fails(Sandbox.fork(THAW_TEST_BUSY), 'ServiceBusyError');
    // Nothing has happened to it.
    assert.equal((await Sandbox.getInfo(THAW_TEST_BUSY)).state, 'running');
  },

  'trouble/unresponsive': async ({ sdk }) => {
    const error = (await fails(sdk.Sandbox.connect(THAW_TEST_HUNG), 'SandboxError')) as SandboxError;
    assert.equal(error.statusCode, 409);
    assert.match(error.message, /memory/);
    assert.equal((await sdk.Sandbox.getInfo(THAW_TEST_HUNG)).state, 'paused');
  },

  'trouble/forks': async ({ sdk }) => {
    const forks = await sdk.Sandbox.fork(THAW_TEST_FORKED, { count: 6 });
    const told = forks.map((fork) => (fork instanceof Error ? fork.name : 'started'));
    assert.deepEqual(told, [
      'NotFoundError',
      'AuthenticationError',
      'RateLimitError',
      'ServiceBusyError',
      'SandboxError',
      'started',
    ]);
  },
};
