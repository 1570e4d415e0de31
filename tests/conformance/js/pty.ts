import assert from 'node:assert/strict';
import type { CommandHandle, Sandbox } from 'e2b';
import { type Cases, eventually, fails, sh } from './stage.ts';

/** A shell in a terminal, and all that it has written. */
async function open(sandbox: Sandbox): Promise<{ shell: CommandHandle; said: () => string }> {
  const pieces: Uint8Array[] = [];
  const shell = await sandbox.pty.create({
    cols: 80,
    rows: 24,
    timeoutMs: 0,
    envs: { FROM_REQUEST: 'yes' },
    onData: (data) => void pieces.push(data),
  });
  return { shell, said: () => Buffer.concat(pieces).toString() };
}

const type = (sandbox: Sandbox, shell: CommandHandle, text: string) =>
  sandbox.pty.sendInput(shell.pid, new TextEncoder().encode(text));

export const pty: Cases = {
  'pty/session': async ({ shared }) => {
    const sandbox = await shared();
    const { shell, said } = await open(sandbox);
    await type(sandbox, shell, 'echo "$FROM_REQUEST $TERM $(tty) $(id -un)"; stty size\n');
    await eventually(() => assert.match(said(), /yes xterm-256color \/dev\/pts\/\d+ user\r\n24 80/));
    await sandbox.pty.resize(shell.pid, { cols: 132, rows: 50 });
    await type(sandbox, shell, 'stty size; tput cols\n');
    await eventually(() => assert.match(said(), /50 132\r\n132/));
    // Ctrl-C reaches what runs.
    await type(sandbox, shell, 'sleep 611\n');
    await eventually(() => sh(sandbox, "pgrep -f '^sleep 611'"));
    await type(sandbox, shell, '\u0003');
    await type(sandbox, shell, 'echo "then 🦀 $((40+2))"\n');
    await eventually(() => assert.match(said(), /then 🦀 42/));
    await type(sandbox, shell, 'exit 5\n');
    const ended = (await fails(shell.wait(), 'CommandExitError')) as Error & { exitCode: number };
    assert.equal(ended.exitCode, 5);
  },

  'pty/reconnect': async ({ shared }) => {
    const sandbox = await shared();
    const { shell, said } = await open(sandbox);
    await type(sandbox, shell, 'STATE=kept; echo ready-$STATE\n');
    await eventually(() => assert.match(said(), /ready-kept/));
    await shell.disconnect();
    const pieces: Uint8Array[] = [];
    const again = await sandbox.pty.connect(shell.pid, { onData: (data) => void pieces.push(data) });
    assert.equal(again.pid, shell.pid);
    await type(sandbox, again, 'echo "still $STATE"\n');
    await eventually(() => assert.match(Buffer.concat(pieces).toString(), /still kept/));
    assert.ok((await sandbox.commands.list()).some(({ pid }) => pid === shell.pid));
    assert.equal(await sandbox.pty.kill(shell.pid), true);
    await fails(again.wait(), 'CommandExitError');
    assert.equal(await sandbox.pty.kill(shell.pid), false);
    await fails(sandbox.pty.connect(999_999), 'NotFoundError');
  },
};
