import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { newApiKey } from '@thaw/api';
import { readConfig } from './config.ts';
import { ThrowawayCluster } from './db/throwaway.ts';
import { FakeAgent } from './host/fake-agent.ts';

const MAIN = join(import.meta.dirname, 'main.ts');

describe('the program', () => {
  let cluster: ThrowawayCluster;
  let agent: FakeAgent;
  let folder: string;
  let env: NodeJS.ProcessEnv;
  before(async () => {
    cluster = await ThrowawayCluster.start();
    folder = mkdtempSync(join(tmpdir(), 'thaw-main-'));
    agent = await new FakeAgent(join(folder, 'agent.sock')).listen();
    env = {
      PATH: process.env.PATH,
      THAW_DATABASE_URL: await cluster.database(),
      THAW_RUN: folder,
      THAW_LISTEN: '127.0.0.1:0',
    };
  });
  after(async () => {
    await agent?.[Symbol.asyncDispose]();
    await cluster?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  async function run(args: string[], input = '', more: NodeJS.ProcessEnv = {}) {
    const child = spawn(process.execPath, [MAIN, ...args], { env: { ...env, ...more } });
    child.stdin.on('error', () => {});
    child.stdin.end(input);
    const [stdout, stderr, [code]] = await Promise.all([
      text(child.stdout),
      text(child.stderr),
      once(child, 'close'),
    ]);
    return { stdout, stderr, code };
  }

  it('makes the first key once, takes others, serves with them, and ends when told', async () => {
    const [first, twin] = [await run(['init-key']), await run(['init-key'])];
    const { created, key } = JSON.parse(first.stdout);
    assert.equal(created, true);
    assert.match(key, /^e2b_[0-9a-f]{40}$/);
    assert.deepEqual(JSON.parse(twin.stdout), { created: false });
    const own = newApiKey();
    for (let i = 0; i < 2; i++) assert.equal((await run(['add-key'], `${own}\n`)).code, 0);
    const wrong = await run(['add-key'], 'nonsense');
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /40 hexadecimal/);

    const child = spawn(process.execPath, [MAIN], { env, stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      const exited = once(child, 'exit');
      const url = await listening(child.stdout);
      for (const valid of [key, own]) {
        const answer = await fetch(`${url}/v1/sandboxes`, { headers: { 'X-API-Key': valid } });
        assert.equal(answer.status, 200);
      }
      child.stdout.resume();
      child.kill('SIGTERM');
      assert.deepEqual(await exited, [0, null]);
    } finally {
      child.kill('SIGKILL');
    }
  });

  async function listening(stdout: NodeJS.ReadableStream): Promise<string> {
    const lines = createInterface(stdout);
    const { promise, resolve } = Promise.withResolvers<string>();
    lines.on('line', (line) => {
      const entry = JSON.parse(line);
      if (entry.msg === 'listening') resolve(entry.url);
    });
    return promise;
  }

  it('says what is wrong with its settings', async () => {
    assert.equal((await run(['nonsense'])).code, 2);
    const none = await run([], '', { THAW_DATABASE_URL: undefined });
    assert.equal(none.code, 1);
    assert.match(none.stderr, /no database/);
    const listen = await run([], '', { THAW_LISTEN: 'nowhere' });
    assert.equal(listen.code, 1);
    assert.match(listen.stderr, /THAW_LISTEN/);
    const config = readConfig({ DATABASE_URL: 'postgres://x', THAW_LISTEN: '[::1]:80' });
    assert.deepEqual(config.listen, { host: '::1', port: 80 });
  });
});
