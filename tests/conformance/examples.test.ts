/** The examples, run as a user would, on an installed Thaw with real VMs. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { standIn } from '../../examples/agent/stand-in.ts';
import { eventually } from '../e2e/harness.ts';
import { ownHost } from '../e2e/own-host.ts';
import { Deployment } from './deployment.ts';
import { installPython, pythonOf } from './python.ts';

const NEWEST_PYTHON = '2.63.0';
const EXAMPLES = path.join(import.meta.dirname, '../../examples');
const TIMEOUT_MS = 120_000;

await installPython([NEWEST_PYTHON]);
await ownHost(import.meta.filename);

async function output(argv: readonly string[], env: Record<string, string>): Promise<string> {
  const [program, ...args] = argv;
  const { stdout } = await promisify(execFile)(program!, args, { env, timeout: TIMEOUT_MS });
  return stdout;
}

describe('the examples', () => {
  let thaw: Deployment;
  before(async () => {
    thaw = await Deployment.start();
  });
  after(() => thaw?.stop());

  const primes = /primes: \[2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47\]/;
  const resumed = /resumed: the counter went on from (\d+) to (\d+)/;
  for (const [language, argv] of Object.entries({
    JavaScript: [process.execPath, path.join(EXAMPLES, 'plain/main.ts')],
    Python: [pythonOf(NEWEST_PYTHON), '-B', path.join(EXAMPLES, 'plain/main.py')],
  })) {
    it(`the plain one in ${language}`, async () => {
      const said = await output(argv, thaw.env('plain'));
      assert.match(said, primes);
      const [, from, to] = resumed.exec(said)!;
      assert.ok(Number(to) > Number(from), said);
      assert.match(said, /a copy knows the file too: 6\d bytes/);
    });
  }

  it('an agent, whose model is a stand-in', async () => {
    const program = 'print(sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, 1000)))';
    await using model = await standIn([
      { call: 'write_file', input: { path: 'primes.py', content: program } },
      { call: 'run_command', input: { command: 'python3 primes.py; exit 3' } },
      { call: 'run_command', input: { command: 'python3 primes.py' } },
      { say: 'The tool said {result}' },
    ]);
    const env = { ...thaw.env('plain'), MODEL_URL: model.url };
    const said = await output([process.execPath, path.join(EXAMPLES, 'agent/main.ts'), 'Count.'], env);
    assert.match(said, /tool write_file .*primes\.py/);
    assert.match(said, /The tool said \{"exitCode":0,"stdout":"168\\n","stderr":""\}/);
    // A command that fails is told to the model.
    assert.match(model.requests[2]!.at(-1)!.content!, /"exitCode":3/);
    assert.equal(model.requests.length, 4);
  });

  it('the MCP server, by the protocol’s own client', async () => {
    const transport = new StdioClientTransport({
      command: process.execPath,
      args: [path.join(EXAMPLES, 'mcp/main.ts')],
      env: thaw.env('tls'),
    });
    const client = new Client({ name: 'test', version: '1.0.0' });
    await client.connect(transport);
    await using ending = new AsyncDisposableStack();
    ending.defer(() => client.close());

    const raw = (name: string, input: Record<string, unknown>) =>
      client.callTool({ name, arguments: input }, undefined, { timeout: TIMEOUT_MS });
    /** What the tool said, as JSON if it is. */
    const call = async (name: string, input: Record<string, unknown> = {}) => {
      const result = await raw(name, input);
      const [{ text }] = result.content as [{ text: string }];
      assert.notEqual(result.isError, true, text);
      return /^[[{]/.test(text) ? JSON.parse(text) : text;
    };

    const { tools } = await client.listTools();
    assert.equal(tools.length, 12);
    const { sandbox_id } = await call('create_sandbox', { env: { GREETING: 'hello' } });
    const inside = { sandbox_id };
    assert.deepEqual(await call('exec', { ...inside, command: 'echo $GREETING; exit 4' }), {
      exit_code: 4,
      stdout: 'hello\n',
      stderr: '',
    });
    await call('write_file', { ...inside, path: 'site/index.html', content: 'from the sandbox' });
    assert.equal(await call('read_file', { ...inside, path: 'site/index.html' }), 'from the sandbox');
    assert.deepEqual(await call('list_files', { ...inside, path: 'site' }), [
      { path: '/home/user/site/index.html', type: 'file', size: 16 },
    ]);
    const serve = { command: 'python3 -m http.server 8000', cwd: '/home/user/site', background: true };
    assert.ok((await call('exec', { ...inside, ...serve })).pid > 0);
    const { url } = await call('expose_port', { ...inside, port: 8000 });
    const fetched = `process.stdout.write(await (await fetch(${JSON.stringify(url)})).text())`;
    const page = () => output([process.execPath, '--input-type=module', '-e', fetched], thaw.env('tls'));
    await eventually(async () => assert.equal(await page(), 'from the sandbox'));

    assert.equal(await call('pause_sandbox', inside), 'paused');
    assert.equal(
      (await call('list_sandboxes')).find((one: typeof inside) => one.sandbox_id === sandbox_id).state,
      'paused',
    );
    assert.equal(await call('resume_sandbox', inside), 'running');
    assert.equal(await page(), 'from the sandbox');
    const { snapshot_id } = await call('snapshot_sandbox', inside);
    const copy = await call('create_sandbox', { template: snapshot_id });
    assert.equal(await call('read_file', { ...copy, path: 'site/index.html' }), 'from the sandbox');
    const forks = await call('fork_sandbox', { ...inside, count: 2 });
    assert.equal(forks.length, 2);
    assert.equal(
      (await call('exec', { ...forks[1], command: 'cat site/index.html' })).stdout,
      'from the sandbox',
    );

    const absent = await raw('read_file', { ...inside, path: 'absent' });
    assert.equal(absent.isError, true);
    for (const one of [inside, copy, ...forks]) assert.equal(await call('kill_sandbox', one), 'killed');
    assert.equal((await raw('exec', { ...inside, command: 'true' })).isError, true);
  });
});
