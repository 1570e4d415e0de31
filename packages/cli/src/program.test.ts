import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { buffer, text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { TestPlane, until } from '../../control-plane/src/testing.ts';

const MAIN = path.join(import.meta.dirname, 'main.ts');

interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

describe('the command line', { concurrency: 4 }, () => {
  let plane: TestPlane;
  let folder: string;
  let id: string;

  before(async () => {
    plane = await TestPlane.start();
    folder = mkdtempSync(path.join(os.tmpdir(), 'thaw-cli-'));
    id = await plane.createSandbox({ metadata: { of: 'the suite' } });
  });
  after(async () => {
    await plane?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  function start(args: string[], env: Record<string, string> = {}): ChildProcess {
    const own = { PATH: process.env.PATH!, THAW_URL: plane.url, THAW_API_KEY: plane.key, ...env };
    return spawn(process.execPath, [MAIN, ...args], { env: own, cwd: folder });
  }

  async function thaw(
    args: string[],
    input: string | Buffer = '',
    env: Record<string, string> = {},
  ): Promise<Result> {
    const child = start(args, env);
    child.stdin!.on('error', () => {});
    child.stdin!.end(input);
    const [stdout, stderr] = await Promise.all([
      text(child.stdout!),
      text(child.stderr!),
      once(child, 'close'),
    ]);
    return { code: child.exitCode, stdout, stderr };
  }

  test('help is for everybody, usage errors are 2', async () => {
    for (const args of [['--help'], ['sandbox', 'exec', '--help']]) {
      const { code, stdout } = await thaw(args, '', { THAW_API_KEY: '', THAW_DATA: '/nonexistent' });
      assert.equal(code, 0);
      assert.match(stdout, /Usage: thaw/);
    }
    for (const args of [['sandbx'], ['sandbox', 'get'], ['sandbox', 'create', '--vcpus', 'two'], []]) {
      assert.equal((await thaw(args)).code, 2, args.join(' '));
    }
  });

  test('errors are one line and 1', async () => {
    assert.deepEqual(await thaw(['sandbox', 'get', 'sbaaaaaaaaaaaaaaaaaaaa']), {
      code: 1,
      stdout: '',
      stderr: 'thaw: sandbox sbaaaaaaaaaaaaaaaaaaaa does not exist\n',
    });
    const asJson = await thaw(['sandbox', 'create', '--template', 'nosuch', '--json']);
    assert.equal(asJson.code, 1);
    assert.equal(JSON.parse(asJson.stderr).error.code, 'not_found');
    const away = await thaw(['sandbox', 'ls'], '', { THAW_URL: 'http://127.0.0.1:1' });
    assert.deepEqual([away.code, away.stdout], [1, '']);
    assert.match(away.stderr, /^thaw: .*127\.0\.0\.1:1\n$/);
    const noKey = await thaw(['sandbox', 'ls'], '', { THAW_API_KEY: '', THAW_DATA: '/nonexistent' });
    assert.equal(noKey.code, 1);
    assert.match(noKey.stderr, /^thaw: no API key/);
  });

  test('a sandbox from create to rm', async () => {
    const made = await thaw([
      'sandbox',
      'create',
      '--memory',
      '256',
      '-m',
      'of=one test',
      '-e',
      'A=b=c',
      '--no-auto-resume',
    ]);
    assert.match(made.stdout, /^sb[a-z0-9]{20}\n$/);
    const one = made.stdout.trim();
    assert.match(
      (await thaw(['sandbox', 'ls', '-m', 'of=one test'])).stdout,
      new RegExp(`^ID .*\n${one}  running`),
    );
    assert.equal((await thaw(['sandbox', 'pause', one])).code, 0);
    assert.equal(JSON.parse((await thaw(['sandbox', 'get', one, '--json'])).stdout).status, 'paused');
    assert.equal((await thaw(['sandbox', 'exec', one, 'true'])).code, 1);
    assert.equal(JSON.parse((await thaw(['sandbox', 'resume', one, '--json'])).stdout).status, 'running');
    assert.equal(
      typeof JSON.parse((await thaw(['sandbox', 'stat', one, '--json'])).stdout).pages_total,
      'number',
    );
    assert.equal((await thaw(['snapshot', 'create', one, 'cli-app'])).stdout, 'cli-app\n');
    assert.equal((await thaw(['snapshot', 'create', one, 'cli-app'])).code, 1);
    assert.equal((await thaw(['snapshot', 'create', one, 'cli-app', '--overwrite'])).code, 0);
    const warm = ['--overwrite', '--run', 'true', '--run', 'exit 3', '--warm-up-timeout', '9'];
    const cold = await thaw(['snapshot', 'create', one, 'cli-app', ...warm]);
    assert.deepEqual([cold.code, cold.stderr.includes('command 2 of the warm-up ended with 3')], [1, true]);
    assert.equal((await thaw(['snapshot', 'create', one, '--run', 'true', '--ready', 'true'])).code, 0);
    assert.match((await thaw(['snapshot', 'ls', '--type', 'snapshot'])).stdout, /cli-app +snapshot +256 MiB/);
    const spawned = (await thaw(['sandbox', 'create', '-t', 'cli-app'])).stdout.trim();
    assert.equal((await thaw(['sandbox', 'rm', one, spawned])).code, 0);
    assert.equal((await thaw(['snapshot', 'rm', 'cli-app'])).code, 0);
    assert.match((await thaw(['sandbox', 'get', one])).stdout, /status +stopped/);
  });

  test('a sandbox ends, wakes and reaches what the options say', async () => {
    const limits = ['--timeout', '60', '--on-timeout', 'kill', '--allow', '192.0.2.1,198.51.100.0/24'];
    const names = ['--allow', '*.example.com', '--dns', '192.0.2.53'];
    const one = (await thaw(['sandbox', 'create', ...limits, ...names])).stdout.trim();
    const facts = async () => JSON.parse((await thaw(['sandbox', 'get', one, '--json'])).stdout);
    const made = await facts();
    assert.deepEqual([made.timeout_sec, made.on_timeout, made.auto_resume], [60, 'kill', true]);
    const allow_out = ['192.0.2.1', '198.51.100.0/24', '*.example.com'];
    assert.deepEqual(made.network, { internet: false, allow_out, deny_out: [], dns_servers: ['192.0.2.53'] });
    const change = [
      '--timeout',
      '0',
      '--no-auto-resume',
      '-m',
      'a=b',
      '--deny',
      '192.0.2.0/24',
      '--deny',
      '192.0.2.9',
    ];
    assert.deepEqual(await thaw(['sandbox', 'set', one, ...change]), { code: 0, stdout: '', stderr: '' });
    const set = await facts();
    assert.deepEqual([set.timeout_sec, set.on_timeout, set.auto_resume], [0, 'kill', false]);
    assert.deepEqual(set.metadata, { a: 'b' });
    const deny_out = ['192.0.2.0/24', '192.0.2.9'];
    assert.deepEqual(set.network, { internet: true, allow_out: [], deny_out });
    assert.equal((await thaw(['sandbox', 'set', one])).code, 1);
    assert.equal((await thaw(['sandbox', 'set', one, '--on-timeout', 'freeze'])).code, 2);
    assert.equal((await thaw(['sandbox', 'pause', one])).code, 0);
    assert.equal((await thaw(['sandbox', 'resume', '--no-memory', one])).code, 0);
    assert.equal((await thaw(['sandbox', 'rm', one])).code, 0);
  });

  test('exec passes output, code and options of the command through', async () => {
    const run = await thaw(['sandbox', 'exec', id, 'sh', '-c', 'echo out; echo err >&2; exit 7']);
    assert.deepEqual(run, { code: 7, stdout: 'out\n', stderr: 'err\n' });
    const json = await thaw(['sandbox', 'exec', '--json', id, 'sh', '-c', 'echo out; exit 7']);
    assert.equal(json.code, 7);
    assert.deepEqual(JSON.parse(json.stdout), {
      sandbox_id: id,
      cmd: 'sh',
      stdout: 'out\n',
      stderr: '',
      encoding: 'utf-8',
      exit_code: 7,
    });
  });

  test('exec -i carries any bytes in, and out again', async () => {
    const data = randomBytes(3_000_000);
    const child = start(['sandbox', 'exec', '-i', id, 'cat']);
    child.stdin!.end(data);
    const [out] = await Promise.all([buffer(child.stdout!), once(child, 'close')]);
    assert.ok(out.equals(data));
    assert.equal(child.exitCode, 0);
  });

  test('a command that does not read its input ends without it', async () => {
    const child = start(['sandbox', 'exec', '-i', id, 'sh', '-c', 'exit 3']);
    await once(child, 'exit');
    assert.equal(child.exitCode, 3);
    child.stdin!.destroy();
  });

  test('exec into a reader that goes away stops the command', async () => {
    const child = start(['sandbox', 'exec', id, 'sh', '-c', 'yes']);
    await once(child.stdout!, 'data');
    child.stdout!.destroy();
    await once(child, 'exit');
    assert.ok(child.exitCode !== 0);
    assert.equal(await text(child.stderr!), '');
  });

  test('Ctrl-C stops the command in the sandbox', async () => {
    const child = start(['sandbox', 'exec', id, 'sh', '-c', 'echo up; sleep 100']);
    await once(child.stdout!, 'data');
    assert.ok(plane.agent.processes.size > 0);
    child.kill('SIGINT');
    await once(child, 'exit');
    assert.equal(child.exitCode, 143);
  });

  test('Ctrl-C during create removes what is made meanwhile', async () => {
    await using own = await TestPlane.start({ cluster: plane.cluster });
    const release = own.agent.hold('createSandbox');
    const child = start(['sandbox', 'create'], { THAW_URL: own.url, THAW_API_KEY: own.key });
    await until(async () => (await own.ask('GET', '/v1/sandboxes?status=pending')).body.length === 1);
    child.kill('SIGINT');
    release();
    const [stdout] = await Promise.all([text(child.stdout!), once(child, 'close')]);
    assert.deepEqual([child.exitCode, stdout], [130, '']);
    assert.equal((await own.ask('GET', '/v1/sandboxes')).body.length, 0);
    assert.equal((await own.ask('GET', '/v1/sandboxes?status=stopped')).body.length, 1);
  });

  test('cp both ways, through files, folders and pipes', async () => {
    const data = randomBytes(2_000_000);
    const file = path.join(folder, 'data.bin');
    writeFileSync(file, data);
    assert.equal((await thaw(['sandbox', 'cp', file, `${id}:/in`])).code, 0);
    assert.equal((await thaw(['sandbox', 'cp', `${id}:/in`, path.join(folder, 'out.bin')])).code, 0);
    assert.ok(readFileSync(path.join(folder, 'out.bin')).equals(data));
    assert.equal((await thaw(['sandbox', 'cp', `${id}:/in`, folder])).code, 0);
    assert.ok(readFileSync(path.join(folder, 'in')).equals(data));
    assert.equal((await thaw(['sandbox', 'cp', '-', `${id}:/piped`], 'through a pipe')).code, 0);
    assert.equal((await thaw(['sandbox', 'cp', `${id}:/piped`, '-'])).stdout, 'through a pipe');
    const json = await thaw(['sandbox', 'cp', '--json', `${id}:/piped`, path.join(folder, 'p')]);
    assert.equal(JSON.parse(json.stdout).size_bytes, 14);
  });

  test('cp that fails leaves no file', async () => {
    const target = path.join(folder, 'never');
    assert.equal((await thaw(['sandbox', 'cp', `${id}:/nosuch`, target])).code, 1);
    assert.equal((await thaw(['sandbox', 'cp', folder, `${id}:/folder`])).code, 1);
    assert.equal((await thaw(['sandbox', 'cp', 'a', 'b'])).code, 1);
    assert.ok(!readdirSync(folder).some((name) => name.includes('never')));
  });

  test('a cp that is interrupted leaves neither a file nor half of one', async () => {
    const child = start(['sandbox', 'cp', '-', `${id}:/half`]);
    child.stdin!.on('error', () => {});
    child.stdin!.write(Buffer.alloc(500_000));
    // Drained: the copy reads.
    await once(child.stdin!, 'drain');
    child.kill('SIGINT');
    await once(child, 'exit');
    child.stdin!.destroy();
    assert.equal(child.exitCode, 130);
    await until(() => !plane.agent.files.has(`${id}:/half`));
  });
});
