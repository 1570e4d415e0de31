/** Terminals in a sandbox, and a shell on a terminal here. */
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Terminal } from '../../packages/cli/src/fixture/terminal.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

describe('a terminal', () => {
  let thaw: TestThaw;
  let id: string;
  before(async () => {
    thaw = await startThaw();
    id = (await thaw.sdk.sandboxes.create()).id;
  });
  after(() => thaw?.stop());

  it('has a size that changes, an input, and an exit code', async () => {
    const script =
      'stty size; tty; echo ready; while ! read -t 0.2 line; do stty size; done; echo "got $line" >&2; exit 4';
    const run = thaw.sdk.sandboxes.execStream(id, {
      cmd: '/bin/bash',
      args: ['-c', script],
      pty: { cols: 100, rows: 30 },
    });
    let shown = '';
    const reading = (async () => {
      for await (const { stream, data } of run) {
        assert.equal(stream, 'stdout');
        shown += Buffer.from(data).toString();
      }
    })();
    await eventually(async () => assert.match(shown, /30 100\r\n\/dev\/pts\/\d+\r\nready\r\n/));
    await run.resize({ cols: 132, rows: 43 });
    await eventually(async () => assert.match(shown, /\r\n43 132\r\n/));
    await run.write(Buffer.from('hello\r'));
    await reading;
    assert.match(shown, /got hello\r\n$/);
    assert.equal((await run.result).exitCode, 4);
  });

  it('passes Ctrl-C and Ctrl-D on', async () => {
    const run = thaw.sdk.sandboxes.execStream(id, { cmd: 'cat', pty: { cols: 80, rows: 24 } });
    await run.pid;
    await run.write(Buffer.from('x\r\u0004'));
    assert.equal((await run.wait()).exitCode, 0);
    const other = thaw.sdk.sandboxes.execStream(id, {
      cmd: 'sleep',
      args: ['1000'],
      pty: { cols: 80, rows: 24 },
    });
    await other.pid;
    await other.write(Buffer.from('\u0003'));
    assert.notEqual((await other.wait()).exitCode, 0);
  });

  it('goes, with what runs on it, when its client does', async () => {
    const run = thaw.sdk.sandboxes.execStream(id, {
      cmd: '/bin/bash',
      args: ['-c', 'sleep 7654; true'],
      pty: { cols: 80, rows: 24 },
    });
    await run.pid;
    run.close();
    await eventually(async () => {
      const { exit_code } = await thaw.sdk.sandboxes.exec(id, { cmd: 'pgrep', args: ['-f', '^sleep 7654'] });
      assert.equal(exit_code, 1);
    });
  });

  it('is a shell by `thaw sandbox shell`, as wide as the window', async () => {
    using shell = openShell('stty rows 33 cols 111');
    await shell.shows(/[#$] $/);
    shell.type('stty size; tty\r');
    await shell.shows(/33 111\s+\/dev\/pts/);
    shell.resize(44, 122);
    await eventually(async () => {
      shell.type('stty size\r');
      await shell.shows(/44 122/, 2000);
    });
    shell.type('sleep 9876\r');
    const sleeping = async () =>
      (await thaw.sdk.sandboxes.exec(id, { cmd: 'pgrep', args: ['-f', '^sleep 9876'] })).exit_code;
    await eventually(async () => assert.equal(await sleeping(), 0));
    shell.type('\u0003');
    await shell.shows(/\^C[\s\S]*[#$] $/);
    shell.type('exit 9\r');
    assert.equal(await shell.code, 9);
  });

  it('is left as it was when the shell ends badly', async () => {
    using shell = openShell('true', '; stty -a');
    await shell.shows(/[#$] $/);
    shell.type('kill -9 $$\r');
    await shell.shows(/[^-]icanon/);
    await shell.code;
  });

  it('is needed for a shell, which says so', async () => {
    const refused = await thaw.cli(['sandbox', 'shell', id]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /needs a terminal/);
  });

  /** `thaw sandbox shell` on a new terminal, with `before` and `after` run around it there. */
  function openShell(before: string, after = ''): Terminal {
    const line = `${before}; ${path.join(thaw.version, 'bin/thaw')} sandbox shell ${id}${after}`;
    return new Terminal(line, {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/root',
      THAW_DATA: thaw.data,
      THAW_URL: thaw.url,
    });
  }
});
