import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CommandExitError } from 'e2b';
import { type Cases, eventually, fails, sh } from './stage.ts';

export const commands: Cases = {
  'commands/foreground': async ({ shared }) => {
    const sandbox = await shared();
    const pieces: string[] = [];
    const result = await sandbox.commands.run('echo out; echo err >&2', {
      onStdout: (text) => void pieces.push(`1${text}`),
      onStderr: (text) => void pieces.push(`2${text}`),
    });
    assert.deepEqual([result.exitCode, result.stdout, result.stderr], [0, 'out\n', 'err\n']);
    assert.deepEqual(pieces.sort(), ['1out\n', '2err\n']);
    const failed = (await fails(
      sandbox.commands.run('echo said; echo why >&2; exit 7'),
      'CommandExitError',
    )) as CommandExitError;
    assert.deepEqual([failed.exitCode, failed.stdout, failed.stderr], [7, 'said\n', 'why\n']);
    const missing = (await fails(
      sandbox.commands.run('no-such-program'),
      'CommandExitError',
    )) as CommandExitError;
    assert.equal(missing.exitCode, 127);
    assert.match(missing.stderr, /no-such-program/);
  },

  'commands/background': async ({ shared }) => {
    const sandbox = await shared();
    const pieces: string[] = [];
    const handle = await sandbox.commands.run('echo first; sleep 1; echo second; sleep 600', {
      background: true,
      onStdout: (text) => void pieces.push(text),
    });
    assert.ok(handle.pid > 0);
    await eventually(() => assert.equal(pieces.join(''), 'first\nsecond\n'));
    const listed = (await sandbox.commands.list()).find(({ pid }) => pid === handle.pid);
    assert.equal(listed?.cmd, '/bin/bash');
    assert.deepEqual(listed.args.slice(0, 2), ['-l', '-c']);
    assert.match(listed.args[2]!, /^echo first/);
    assert.equal(await sh(sandbox, `kill -0 ${handle.pid} && echo alive`), 'alive', 'the id is the guest’s');
    assert.equal(await handle.kill(), true);
    await fails(handle.wait(), 'CommandExitError');
    assert.equal(
      (await sandbox.commands.list()).some(({ pid }) => pid === handle.pid),
      false,
    );
    const short = await sandbox.commands.run('echo done', { background: true });
    assert.equal((await short.wait()).stdout, 'done\n');
  },

  'commands/stdin': async ({ shared }) => {
    const sandbox = await shared();
    const pieces: string[] = [];
    const handle = await sandbox.commands.run('while read line; do echo "got $line"; done', {
      background: true,
      stdin: true,
      onStdout: (text) => void pieces.push(text),
    });
    await sandbox.commands.sendStdin(handle.pid, 'one\n');
    await eventually(() => assert.equal(pieces.join(''), 'got one\n'));
    await sandbox.commands.sendStdin(handle.pid, 'two\nthree\n');
    await eventually(() => assert.equal(pieces.join(''), 'got one\ngot two\ngot three\n'));
    assert.equal(await sandbox.commands.kill(handle.pid), true);
    await fails(handle.wait(), 'CommandExitError');
  },

  'commands/close-stdin': async ({ shared }) => {
    const sandbox = await shared();
    const handle = await sandbox.commands.run('wc -c', { background: true, stdin: true });
    await handle.sendStdin('12345');
    await handle.sendStdin(new Uint8Array(100_000).fill(120));
    await handle.closeStdin();
    assert.equal((await handle.wait()).stdout.trim(), '100005');
    // Without standard input there is nothing to wait for.
    assert.equal((await sandbox.commands.run('cat', { stdin: false, timeoutMs: 10_000 })).stdout, '');
    const closed = await sandbox.commands.run('sleep 30', { background: true, stdin: false });
    await fails(closed.sendStdin('x'), 'SandboxError', 'InvalidArgumentError', 'NotFoundError');
    await closed.kill();
    await fails(closed.wait(), 'CommandExitError');
  },

  'commands/kill': async ({ shared }) => {
    const sandbox = await shared();
    const handle = await sandbox.commands.run('sleep 600', { background: true });
    assert.equal(await sandbox.commands.kill(handle.pid), true);
    const killed = (await fails(handle.wait(), 'CommandExitError')) as CommandExitError;
    assert.notEqual(killed.exitCode, 0);
    assert.match(killed.error ?? '', /killed/);
    assert.equal(await sandbox.commands.kill(handle.pid), false, 'nothing has that id any more');
    assert.equal(await sandbox.commands.kill(999_999), false);
    // A signal by hand: the command may end as it likes.
    const trap = await sandbox.commands.run(
      "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
      {
        background: true,
      },
    );
    await eventually(() => assert.match(trap.stdout, /ready/));
    await sandbox.commands.run(`kill -TERM ${trap.pid}`);
    const ended = (await fails(trap.wait(), 'CommandExitError')) as CommandExitError;
    assert.deepEqual([ended.exitCode, ended.stdout], [3, 'ready\nbye\n']);
  },

  'commands/reconnect': async ({ shared }) => {
    const sandbox = await shared();
    const script = 'for n in $(seq 1 200); do echo $n; sleep 0.1; done';
    const handle = await sandbox.commands.run(script, { background: true, timeoutMs: 0 });
    await eventually(() => assert.match(handle.stdout, /^1\n/));
    await handle.disconnect();
    await sleep(500);
    const pieces: string[] = [];
    const again = await sandbox.commands.connect(handle.pid, { onStdout: (text) => void pieces.push(text) });
    assert.equal(again.pid, handle.pid);
    await eventually(() => assert.ok(pieces.join('').split('\n').length > 3));
    assert.ok(Number(pieces[0]!.split('\n')[0]) > 3, 'it went on meanwhile, and that is not sent again');
    assert.equal(await again.kill(), true);
    await fails(again.wait(), 'CommandExitError');
    await fails(sandbox.commands.connect(999_999), 'NotFoundError', 'SandboxError');
  },

  'commands/timeout': async ({ shared }) => {
    const sandbox = await shared();
    const started = performance.now();
    await fails(sandbox.commands.run('sleep 60 # of the timeout', { timeoutMs: 1500 }), 'TimeoutError');
    assert.ok(performance.now() - started < 15_000);
    await eventually(async () =>
      assert.equal(await sh(sandbox, "pgrep -fc '[o]f the timeout' || true"), '0', 'its process is gone'),
    );
    assert.equal((await sandbox.commands.run('sleep 2; echo late', { timeoutMs: 0 })).stdout, 'late\n');
  },

  'commands/environment': async ({ create }) => {
    const sandbox = await create({ envs: { OF_SANDBOX: 'sandbox', BOTH: 'sandbox' } });
    const envs = { BOTH: 'command', QUOTED: `a "b" 'c' $d` };
    const { stdout } = await sandbox.commands.run(
      'echo "$OF_SANDBOX/$BOTH/$QUOTED"; pwd; id -un; echo $HOME',
      {
        envs,
        cwd: '/tmp',
        user: 'root',
      },
    );
    assert.equal(stdout, `sandbox/command/a "b" 'c' $d\n/tmp\nroot\n/root\n`);
    assert.equal(await sh(sandbox, 'id -un; pwd; sudo id -un'), 'user\n/home/user\nroot');
  },

  'commands/unicode': async ({ shared }) => {
    const sandbox = await shared();
    // A character of four bytes, written a byte at a time with a flush between: every chunk splits it.
    const script = `import sys, time
for byte in ("héllo wörld 🦀 " * 4 + "終わり").encode():
    sys.stdout.buffer.write(bytes([byte])); sys.stdout.flush(); time.sleep(0.01)`;
    await sandbox.files.write('/tmp/slow.py', script);
    const pieces: string[] = [];
    const { stdout } = await sandbox.commands.run('python3 /tmp/slow.py', {
      onStdout: (text) => void pieces.push(text),
    });
    assert.equal(stdout, `${'héllo wörld 🦀 '.repeat(4)}終わり`);
    assert.equal(pieces.join(''), stdout);
    assert.ok(pieces.length > 5, `${pieces.length} pieces`);
    const long = await sandbox.commands.run(`python3 -c 'print("🦀" * 100000, end="")'`);
    assert.equal(long.stdout, '🦀'.repeat(100_000));
  },

  'commands/big-output': async ({ shared }) => {
    const sandbox = await shared();
    let length = 0;
    const { stdout } = await sandbox.commands.run('head -c 104857600 /dev/zero | tr "\\0" x', {
      timeoutMs: 0,
      onStdout: (text) => {
        length += text.length;
      },
    });
    assert.equal(stdout.length, 104_857_600);
    assert.equal(length, 104_857_600);
  },

  'commands/sandbox-killed': async ({ create }) => {
    const sandbox = await create();
    const handle = await sandbox.commands.run('echo on; sleep 600', { background: true, timeoutMs: 0 });
    await eventually(() => assert.equal(handle.stdout, 'on\n'));
    const waiting = fails(handle.wait(), 'TimeoutError');
    assert.equal(await sandbox.kill(), true);
    assert.match((await waiting).message, /killed or reached its end of life/);
  },

  'commands/bad-request': async ({ shared }) => {
    const sandbox = await shared();
    const missing = sandbox.commands.run('true', { cwd: '/no/such/folder' });
    assert.match((await fails(missing, 'InvalidArgumentError')).message, /does not exist/);
    await fails(sandbox.commands.run('true', { user: 'nobody-of-that-name' }), 'AuthenticationError');
    await fails(sandbox.commands.sendStdin(999_999, 'x'), 'NotFoundError');
    await fails(sandbox.commands.connect(999_999), 'NotFoundError');
    await fails(sandbox.commands.closeStdin(999_999), 'NotFoundError');
    await fails(sandbox.pty.resize(999_999, { cols: 80, rows: 24 }), 'NotFoundError');
  },
};
