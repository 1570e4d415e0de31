/** Services that a sandbox has on its loopback only, reached from the host as if they listened everywhere. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { after, before, describe, it } from 'node:test';
import type { Sandbox } from '@thaw/api';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

/** Says its name to whoever connects. Arguments: name, address, port, protocol (0: TCP, 262: Multipath TCP, else TCP). */
const SERVER = `
import socket, sys
name, address, port, protocol = sys.argv[1:]
try:
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(protocol))
except OSError:
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((address, int(port)))
s.listen()
while True:
    c, _ = s.accept()
    c.sendall((name + ' ' + socket.gethostname()).encode())
    c.close()
`;

describe('a service on loopback', () => {
  let thaw: TestThaw;
  let sandbox: Sandbox;
  before(async () => {
    thaw = await startThaw();
    sandbox = await thaw.sdk.sandboxes.create({ template: 'base', memory_mb: 512 });
    await thaw.sdk.sandboxes.writeFile(sandbox.id, '/root/server.py', SERVER);
    await serve('inner', '127.0.0.1', 8001);
  });
  after(() => thaw?.stop());

  async function serve(name: string, address: string, port: number, protocol = 0): Promise<void> {
    const server = `python3 /root/server.py ${name} ${address} ${port} ${protocol}`;
    await thaw.sh(sandbox, `${server} > /dev/null 2>&1 & ${listening(port)}`);
  }
  const listening = (port: number) => `until ss -Htln sport = :${port} | grep -q .; do sleep 0.05; done`;

  it('answers at once, as do those that listen everywhere', async () => {
    assert.equal(await say(sandbox, 8001), `inner ${sandbox.id}`);
    await serve('everywhere', '0.0.0.0', 8002);
    assert.equal(await say(sandbox, 8002), `everywhere ${sandbox.id}`);
    assert.equal(await say(sandbox, 8003), 'ECONNREFUSED');
    await serve('multipath', '127.0.0.1', 8004, 262);
    assert.equal(await say(sandbox, 8004), `multipath ${sandbox.id}`);
  });

  it('is what servers make of the name localhost', async () => {
    const node = `node -e 'require("net").createServer((c) => c.end("node")).listen(8010, "localhost")'`;
    await thaw.sh(sandbox, `${node} > /tmp/node.log 2>&1 & ${listening(8010)}`);
    assert.equal(await say(sandbox, 8010), 'node');
    await thaw.sh(sandbox, `python3 -m http.server 8011 > /tmp/py.log 2>&1 & ${listening(8011)}`);
    assert.equal((await fetch(`http://${await hostIp(sandbox)}:8011/`)).status, 200);
  });

  it('leaves its port to whoever wants it next', async () => {
    await serve('first', '127.0.0.1', 8020);
    assert.equal(await say(sandbox, 8020), `first ${sandbox.id}`);
    await thaw.sh(sandbox, `pkill -f '[f]irst 127' && while pgrep -f '[f]irst 127'; do sleep 0.05; done`);
    assert.equal(await say(sandbox, 8020), 'ECONNREFUSED');
    await serve('second', '0.0.0.0', 8020);
    assert.equal(await say(sandbox, 8020), `second ${sandbox.id}`);
  });

  it('never stands in for the agent', async () => {
    await serve('false', '127.0.0.1', 49982);
    const answer = await fetch(`http://${await hostIp(sandbox)}:49982/`).then((it) => it.status);
    assert.equal(answer, 404);
  });

  it('is reached after a pause, in a fork, and when the agent had to start again', async () => {
    await thaw.sdk.sandboxes.pause(sandbox.id);
    await thaw.sdk.sandboxes.resume(sandbox.id);
    assert.equal(await say(sandbox, 8001), `inner ${sandbox.id}`);
    const [fork] = await thaw.sdk.sandboxes.fork(sandbox.id);
    assert.ok(fork !== undefined && 'sandbox' in fork);
    assert.equal(await say(fork.sandbox, 8001), `inner ${fork.sandbox.id}`);
    assert.equal(await say(sandbox, 8001), `inner ${sandbox.id}`);

    await thaw.sh(sandbox, 'kill -KILL $(pgrep -f thaw-envd)').catch(() => {});
    await eventually(() => thaw.sh(sandbox, 'true'));
    assert.equal(await say(sandbox, 8001), `inner ${sandbox.id}`);
    await serve('later', '127.0.0.1', 8030);
    assert.equal(await say(sandbox, 8030), `later ${sandbox.id}`);
  });

  const hostIp = async ({ id }: Sandbox) => (await thaw.sdk.sandboxes.get(id)).host_ip!;

  /** What the service says, or why there is none. */
  async function say(where: Sandbox, port: number): Promise<string> {
    const socket = connect({ host: await hostIp(where), port });
    socket.setTimeout(5000, () => socket.destroy(new Error('silence')));
    try {
      await once(socket, 'connect');
      return Buffer.concat(await socket.toArray()).toString();
    } catch (error) {
      return (error as NodeJS.ErrnoException).code ?? String(error);
    } finally {
      socket.destroy();
    }
  }
});
