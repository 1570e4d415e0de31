import assert from 'node:assert/strict';
import type { Sandbox, SandboxOpts } from 'e2b';
import { type Cases, eventually, type Sdk, type Stage, sh } from './stage.ts';

/** SDKs of 2.2 have both under an older name. */
type Older = { betaCreate(options: SandboxOpts & { autoPause: boolean }): Promise<Sandbox> };

function pause(sandbox: Sandbox): Promise<boolean> {
  return sandbox.pause === undefined ? sandbox.betaPause() : sandbox.pause();
}

async function pausesAtEnd({ sdk, create, keep }: Stage, timeoutMs: number): Promise<Sandbox> {
  const { betaCreate } = sdk.Sandbox as unknown as Older;
  if (sdk.Sandbox.prototype.pause !== undefined || betaCreate === undefined) {
    return create({ timeoutMs, lifecycle: { onTimeout: 'pause' } });
  }
  return keep(await betaCreate.call(sdk.Sandbox, { timeoutMs, autoPause: true }));
}

async function states(sdk: Sdk, sandbox: Sandbox): Promise<string | undefined> {
  const pages = sdk.Sandbox.list({ query: { state: ['running', 'paused'] } });
  while (pages.hasNext) {
    for (const found of await pages.nextItems()) {
      if (found.sandboxId === sandbox.sandboxId) return found.state;
    }
  }
  return undefined;
}

/** A process that holds a secret in its memory alone; it answers on a pipe. */
const KEEPER = `mkfifo /tmp/ask /tmp/answer; exec python3 -uc '
import os
secret = os.urandom(8).hex()
open("/tmp/pid", "w").write(str(os.getpid()))
while True:
    open("/tmp/ask").read()
    open("/tmp/answer", "w").write(secret)
'`;

function secret(sandbox: Sandbox): Promise<string> {
  return sh(sandbox, 'echo > /tmp/ask; cat /tmp/answer');
}

export const lifecycle: Cases = {
  'lifecycle/pause-resume': async ({ sdk, create }) => {
    const sandbox = await create();
    const keeper = await sandbox.commands.run(KEEPER, { background: true, timeoutMs: 0 });
    await eventually(() => sandbox.files.read('/tmp/pid'));
    const [before, boot] = [await secret(sandbox), await sh(sandbox, 'cat /proc/sys/kernel/random/boot_id')];
    await sandbox.files.write('note.txt', 'before the pause');
    await keeper.disconnect();

    assert.equal(await pause(sandbox), true);
    assert.equal(await pause(sandbox), false, 'it is paused already');
    assert.equal(await states(sdk, sandbox), 'paused');
    assert.equal(await sandbox.isRunning(), false);

    const other = await sdk.Sandbox.connect(sandbox.sandboxId);
    assert.equal(other.sandboxId, sandbox.sandboxId);
    assert.equal(await states(sdk, sandbox), 'running');
    // The handle of before works too: the token is the same.
    for (const handle of [other, sandbox]) {
      assert.equal(await secret(handle), before);
      assert.equal(await sh(handle, 'cat /proc/sys/kernel/random/boot_id'), boot);
      assert.equal(await handle.files.read('note.txt'), 'before the pause');
    }
    const running = (await other.commands.list()).find(({ pid }) => pid === keeper.pid);
    assert.ok(running, 'the process has the id that it had');
    assert.equal(await other.commands.kill(keeper.pid), true);
    const late = Math.abs(Number(await sh(other, 'date +%s')) * 1000 - Date.now());
    assert.ok(late < 5000, `the clock is ${late} ms off`);
  },

  'lifecycle/auto-pause': async (stage) => {
    const sandbox = await pausesAtEnd(stage, 4000);
    await sandbox.files.write('note.txt', 'kept');
    await eventually(async () => assert.equal(await states(stage.sdk, sandbox), 'paused'), 40_000);
    // Until it is, the answer is that it is under way; looking does not wake it.
    await eventually(async () => assert.equal(await sandbox.isRunning(), false));
    assert.equal(await states(stage.sdk, sandbox), 'paused');
    const again = await stage.sdk.Sandbox.connect(sandbox.sandboxId, { timeoutMs: 120_000 });
    assert.equal(await again.files.read('note.txt'), 'kept');
    assert.equal(await again.isRunning(), true);
  },

  'lifecycle/auto-resume': async ({ sdk, create, preview }) => {
    const sandbox = await create({ lifecycle: { onTimeout: 'pause', autoResume: true } });
    await sandbox.commands.run('python3 -m http.server 8000', { background: true, timeoutMs: 0 });
    await eventually(async () => assert.equal((await fetch(preview(sandbox, 8000))).status, 200));
    // A call of the agent wakes it, and so does a request for any port.
    assert.equal(await pause(sandbox), true);
    assert.equal(await sh(sandbox, 'echo awake'), 'awake');
    assert.equal(await states(sdk, sandbox), 'running');
    assert.equal(await pause(sandbox), true);
    assert.equal((await fetch(preview(sandbox, 8000))).status, 200);
    // Not without the agent's token.
    assert.equal(await pause(sandbox), true);
    assert.equal((await fetch(`${preview(sandbox, 49983)}/files?path=x`)).status, 403);
    assert.equal(await states(sdk, sandbox), 'paused');
  },

  'lifecycle/filesystem-only': async ({ sdk, create }) => {
    const sandbox = await create();
    await sandbox.commands.run(KEEPER, { background: true, timeoutMs: 0 });
    const boot = await sh(sandbox, 'cat /proc/sys/kernel/random/boot_id');
    await sandbox.files.write('note.txt', 'on disk');
    assert.equal(await sandbox.pause({ keepMemory: false }), true);
    assert.equal(await sandbox.isRunning(), false);
    await sandbox.connect({ timeoutMs: 120_000 });
    assert.notEqual(await sh(sandbox, 'cat /proc/sys/kernel/random/boot_id'), boot);
    assert.equal(await sandbox.files.read('note.txt'), 'on disk');
    assert.equal(await sh(sandbox, 'pgrep -c python3 || true'), '0');
    assert.equal((await sdk.Sandbox.getInfo(sandbox.sandboxId)).state, 'running');

    const auto = await create({
      timeoutMs: 3000,
      lifecycle: { onTimeout: { action: 'pause', keepMemory: false } },
    });
    const first = await sh(auto, 'cat /proc/sys/kernel/random/boot_id');
    await eventually(async () => assert.equal(await states(sdk, auto), 'paused'), 40_000);
    await auto.connect({ timeoutMs: 120_000 });
    assert.notEqual(await sh(auto, 'cat /proc/sys/kernel/random/boot_id'), first);
  },

  'lifecycle/reboot': async ({ sdk, create }) => {
    const sandbox = await create();
    const boot = await sh(sandbox, 'cat /proc/sys/kernel/random/boot_id');
    await sandbox.files.write('note.txt', 'stays');
    await sandbox.connect({ onResume: 'reboot' });
    assert.equal(
      await sh(sandbox, 'cat /proc/sys/kernel/random/boot_id'),
      boot,
      'one that runs is left alone',
    );
    await sandbox.pause();
    const again = await sdk.Sandbox.connect(sandbox.sandboxId, { onResume: 'reboot' });
    assert.notEqual(await sh(again, 'cat /proc/sys/kernel/random/boot_id'), boot);
    assert.equal(await again.files.read('note.txt'), 'stays');
  },
};
