import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { TestPlane, until } from '../../../control-plane/src/testing.ts';
import { Terminal } from '../fixture/terminal.ts';

const MAIN = path.join(import.meta.dirname, '../main.ts');

describe('a shell', () => {
  let plane: TestPlane;
  let id: string;
  before(async () => {
    plane = await TestPlane.start();
    id = await plane.createSandbox();
  });
  after(async () => {
    await plane?.[Symbol.asyncDispose]();
  });

  function open(sandbox: string, around: { before?: string; after?: string } = {}): Terminal {
    const { before = 'true', after = '' } = around;
    const line = `${before}; ${process.execPath} ${MAIN} sandbox shell ${sandbox}${after}`;
    return new Terminal(line, { PATH: process.env.PATH!, THAW_URL: plane.url, THAW_API_KEY: plane.key });
  }

  it('has the keys, the size and the exit code of the terminal', async () => {
    using terminal = open(id, { before: 'stty rows 33 cols 111' });
    await until(() => plane.agent.sizes.length > 0, 30_000);
    assert.deepEqual(plane.agent.sizes, [[111, 33]]);
    terminal.resize(44, 122);
    await until(() => plane.agent.sizes.at(-1)?.join() === '122,44');
    // The agent of this test has no terminal behind: lines end as they do in a pipe.
    terminal.type('echo "[$TERM]"; exit 9\n');
    await terminal.shows(/\[xterm\]/);
    assert.equal(await terminal.code, 9);
  });

  it('leaves the terminal as it was, however it ends', async () => {
    using terminal = open(id, { after: '; stty -a' });
    terminal.type('echo ready\n');
    await terminal.shows(/ready/);
    terminal.type('kill -9 $$\n');
    await terminal.shows(/[^-]icanon/);
  });

  it('says what is wrong', async () => {
    using terminal = open('sbaaaaaaaaaaaaaaaaaaaa');
    await terminal.shows(/thaw: .*does not exist/);
    assert.equal(await terminal.code, 1);
  });
});
