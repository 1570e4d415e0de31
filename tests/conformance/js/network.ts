import assert from 'node:assert/strict';
import type { Sandbox } from 'e2b';
import { type Cases, fails, sh } from './stage.ts';

/** Two addresses of the internet that the suite made; both answer on port 80, and have names there. */
const ONE = process.env.THAW_TEST_INTERNET ?? '';
const TWO = process.env.THAW_TEST_ELSEWHERE ?? '';
const NAMES = { one: 'one.thaw.test', two: 'two.thaw.test', deep: 'a.b.thaw.test' };

/** Which of these hosts answer the guest. */
async function reached(sandbox: Sandbox, hosts: readonly string[] = [ONE, TWO]): Promise<string[]> {
  const probe = (host: string) =>
    `(timeout 4 bash -c 'read -r -n 4 a < /dev/tcp/${host}/80 && echo ${host}' 2> /dev/null) &`;
  const output = await sh(sandbox, `${hosts.map(probe).join('\n')}\nwait`);
  return output.split('\n').filter(Boolean).toSorted();
}

const both = [ONE, TWO].toSorted();

export const network: Cases = {
  'network/none': async ({ create }) => {
    const open = await create();
    assert.deepEqual(await reached(open), both);
    assert.equal((await open.getInfo()).allowInternetAccess, undefined);
    const closed = await create({ allowInternetAccess: false });
    assert.deepEqual(await reached(closed), []);
    assert.equal((await closed.getInfo()).allowInternetAccess, false);
  },

  'network/rules': async ({ sdk, create }) => {
    const denied = await create({ network: { denyOut: [`${ONE}/32`] } });
    assert.deepEqual(await reached(denied), [TWO]);
    const allowed = await create({
      network: { allowOut: [ONE], denyOut: ({ allTraffic }) => [allTraffic] },
    });
    assert.deepEqual(await reached(allowed), [ONE]);
    const { network: said } = await allowed.getInfo();
    assert.deepEqual([said?.allowOut, said?.denyOut], [[ONE], [sdk.ALL_TRAFFIC]]);
    await fails(create({ network: { denyOut: ['example.com'] } }), 'SandboxError');
    await fails(create({ network: { allowOut: ['example.com'] } }), 'SandboxError');
  },

  'network/update': async ({ sdk, create }) => {
    const sandbox = await create();
    await sandbox.updateNetwork({ allowOut: [TWO], denyOut: [sdk.ALL_TRAFFIC] });
    assert.deepEqual(await reached(sandbox), [TWO]);
    await sandbox.pause();
    await sandbox.connect({ timeoutMs: 120_000 });
    assert.deepEqual(await reached(sandbox), [TWO]);
    await sandbox.updateNetwork({ allowInternetAccess: false });
    assert.deepEqual(await reached(sandbox), []);
    await sandbox.updateNetwork({});
    assert.deepEqual(await reached(sandbox), both);
    await fails(sdk.Sandbox.updateNetwork('i0000000000000000000', {}), 'SandboxNotFoundError');
  },

  'network/domains': async ({ sdk, create }) => {
    const names = Object.values(NAMES);
    const open = await create({ network: {} });
    assert.deepEqual(await reached(open, names), names.toSorted());
    const sandbox = await create({
      network: { allowOut: [NAMES.one, '*.b.thaw.test'], denyOut: [sdk.ALL_TRAFFIC] },
    });
    assert.deepEqual(await reached(sandbox, names), [NAMES.deep, NAMES.one].toSorted());
    assert.deepEqual(await reached(sandbox, [TWO]), []);
  },
};
