import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import https from 'node:https';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { after, afterEach, before, test } from 'node:test';
import { ThrowawayCluster } from '../../../control-plane/src/db/throwaway.ts';

const ROOT = path.resolve(import.meta.dirname, '../../../..');

/** In the host agent's place: its interface without VMs. What `up` does with it is the same. */
const AGENT = `import { chmodSync, rmSync } from 'node:fs';
import { FakeAgent } from '../../control-plane/src/host/fake-agent.ts';
const socket = process.env.THAW_RUN + '/agent.sock';
rmSync(socket, { force: true });
await new FakeAgent(socket).listen();
chmodSync(socket, 0o777);
process.on('SIGTERM', () => process.exit(0));
`;

interface Ready {
  url: string;
  proxy_url?: string;
  proxy_tls_url?: string;
  key: string;
  pid: number;
}

let folder: string;
let version: string;
const started: ChildProcess[] = [];

before(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'thaw-up-'));
  await chmod(folder, 0o755);
  // An installation of its own with nothing in the place of what only VMs need.
  const parts = path.join(folder, 'parts');
  await mkdir(parts);
  for (const name of ['thaw-keeper', 'thaw-pager', 'thaw-blockstore', 'libthaw_preload.so']) {
    await writeFile(path.join(parts, name), '');
  }
  for (const name of ['vmlinux', 'initramfs.cpio', 'minimal.ext4', 'base.ext4', 'guest.json']) {
    await writeFile(path.join(parts, name), '');
  }
  const flags = ['--binaries', parts, '--preload', parts, '--guest', parts];
  const install = [path.join(ROOT, 'scripts/install.ts'), ...flags];
  const env = { ...process.env, THAW_PREFIX: path.join(folder, 'prefix') };
  version = execFileSync(process.execPath, install, { env, encoding: 'utf8' }).trim();
  await writeFile(path.join(version, 'packages/host-agent/src/main.ts'), AGENT);
});

afterEach(async () => {
  for (const child of started.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGKILL');
    await once(child, 'close');
  }
  await noProcessLeft();
});

after(() => rm(folder, { recursive: true, force: true }));

function launch(name: string, flags: string[] = [], own: Record<string, string> = {}): ChildProcess {
  const env = {
    PATH: process.env.PATH,
    THAW_DATA: path.join(folder, name, 'data'),
    THAW_RUN: path.join(folder, name, 'run'),
    THAW_LISTEN: '127.0.0.1:0',
    ...own,
  };
  const child = spawn(path.join(version, 'bin/thaw'), ['up', '--json', ...flags], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started.push(child);
  return child;
}

/** The line that `up --json` prints; throws what it says instead. */
async function ready(child: ChildProcess): Promise<Ready> {
  const said: string[] = [];
  createInterface({ input: child.stderr! }).on('line', (line) => said.push(line));
  for await (const line of createInterface({ input: child.stdout! })) return JSON.parse(line);
  throw new Error(said.join('\n'));
}

async function refusal(child: ChildProcess): Promise<string> {
  await assert.rejects(ready(child), (error: Error) => {
    refused = error.message;
    return true;
  });
  if (child.exitCode === null) await once(child, 'exit');
  assert.equal(child.exitCode, 1);
  return refused;
}
let refused = '';

async function end(child: ChildProcess): Promise<void> {
  const closed = once(child, 'exit');
  child.kill('SIGTERM');
  const [code] = await closed;
  assert.equal(code, 0);
}

/** Processes that run from this test's folder or on its cluster. */
async function processes(): Promise<{ pid: number; line: string }[]> {
  const found: { pid: number; line: string }[] = [];
  for (const name of await readdir('/proc')) {
    const line = /^\d+$/.test(name) ? await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '') : '';
    if (line.includes(folder)) found.push({ pid: Number(name), line: line.replaceAll('\0', ' ') });
  }
  return found;
}

async function noProcessLeft(): Promise<void> {
  await until(async () => (await processes()).length === 0);
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 30_000;
  while (!(await holds().catch(() => false))) {
    assert.ok(performance.now() < deadline, 'waited in vain');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function ask({ url, key }: Ready, method: string, where: string, body?: object): Promise<Response> {
  const init = { method, headers: { 'X-API-Key': key } };
  return fetch(`${url}${where}`, body === undefined ? init : { ...init, body: JSON.stringify(body) });
}

test('starts, serves with the kept key, stops, and finds its data again', async () => {
  const child = launch('plain');
  const first = await ready(child);
  assert.equal((await readFile(path.join(folder, 'plain/data/key'), 'utf8')).trim(), first.key);
  const made = await fetch(`${first.url}/v1/sandboxes`, {
    method: 'POST',
    headers: { 'X-API-Key': first.key, 'Content-Type': 'application/json' },
    body: '{}',
  });
  assert.equal(made.status, 201);
  assert.match(await refusal(launch('plain')), /already runs/);
  assert.equal((await ask(first, 'GET', '/v1/sandboxes')).status, 200);
  await end(child);
  await noProcessLeft();

  const again = launch('plain');
  const second = await ready(again);
  assert.equal(second.key, first.key);
  const listed = (await (
    await ask(second, 'GET', '/v1/sandboxes?status=running,stopped,error')
  ).json()) as unknown[];
  assert.equal(listed.length, 1);
  await end(again);
});

test('starts again what is killed, and ends with its own death', async () => {
  const child = launch('killed');
  const thaw = await ready(child);
  for (const part of ['/postgres -D', 'control-plane/src/main.ts', 'host-agent/src/main.ts']) {
    const victim = (await processes()).find(({ line }) => line.includes(part));
    assert.ok(victim, part);
    process.kill(victim.pid, 'SIGKILL');
    await until(async () => !existsSync(`/proc/${victim.pid}/exe`));
    await until(
      async () => (await ask(thaw, 'GET', '/readyz')).ok && (await ask(thaw, 'GET', '/v1/sandboxes')).ok,
    );
  }
  child.kill('SIGKILL');
  await noProcessLeft();
  const next = launch('killed');
  assert.equal((await ready(next)).key, thaw.key);
  await end(next);
});

test('Ctrl-C while it starts leaves nothing', async () => {
  const child = launch('early');
  await until(async () => (await processes()).some(({ line }) => line.includes('postgres')));
  child.kill('SIGINT');
  await once(child, 'exit');
  assert.equal(child.exitCode, 130);
  await noProcessLeft();
  const next = launch('early');
  await ready(next);
  await end(next);
});

test('says what to do when the database was made by another version', async () => {
  const cluster = path.join(folder, 'version/data/postgres');
  await mkdir(cluster, { recursive: true });
  await writeFile(path.join(cluster, 'PG_VERSION'), '9\n');
  assert.match(await refusal(launch('version')), /made by PostgreSQL 9, but .* postgresql-9/);
});

test('refuses a data folder whose restore was cut short', async () => {
  await mkdir(path.join(folder, 'cut/data/.restore'), { recursive: true });
  assert.match(await refusal(launch('cut')), /a restore into .*cut\/data was cut short: empty the folder/);
});

test('refuses a second start on its data folder, whatever its run folder', async () => {
  const child = launch('kept');
  const thaw = await ready(child);
  const other = launch('other', [], { THAW_DATA: path.join(folder, 'kept/data') });
  assert.match(
    await refusal(other),
    /another PostgreSQL \(process \d+\) runs on .*kept\/data\/postgres: stop/,
  );
  assert.equal((await ask(thaw, 'GET', '/v1/sandboxes')).status, 200);
  await end(child);
});

test('goes on at once when everything was killed at once', async () => {
  const child = launch('crashed');
  const thaw = await ready(child);
  const made = (await (await ask(thaw, 'POST', '/v1/keys', { name: 'kept' })).json()) as { key: string };
  child.kill('SIGKILL');
  for (const { pid } of await processes()) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has just ended.
    }
  }
  const next = launch('crashed');
  const again = await ready(next);
  assert.equal((await ask({ ...again, key: made.key }, 'GET', '/v1/team')).status, 200);
  await end(next);
});

test('uses the database that DATABASE_URL names, alone, and starts none', async () => {
  await using cluster = await ThrowawayCluster.start();
  const url = await cluster.database();
  // The control plane's user passes through it.
  await chmod(new URL(url.replace('@/', '@x/')).searchParams.get('host')!, 0o755);
  const child = launch('external', [], { DATABASE_URL: url });
  const thaw = await ready(child);
  assert.ok(!(await processes()).some(({ line }) => line.includes('postgres -D')));
  assert.ok(!existsSync(path.join(folder, 'external/data/postgres')));
  assert.equal((await ask(thaw, 'POST', '/v1/keys', { name: 'kept' })).status, 201);
  const stranger = launch('stranger', [], { DATABASE_URL: url });
  assert.match(await refusal(stranger), /belongs to another data folder/);
  await end(child);
  const heir = launch('heir', [], { DATABASE_URL: url, THAW_CLAIM_DATABASE: '1' });
  await ready(heir);
  await end(heir);
  assert.match(
    await refusal(launch('external', [], { DATABASE_URL: url })),
    /belongs to another data folder/,
  );
  const again = launch('external', [], { DATABASE_URL: url, THAW_CLAIM_DATABASE: '1' });
  const keys = (await (await ask(await ready(again), 'GET', '/v1/keys')).json()) as { name: string }[];
  assert.ok(keys.some(({ name }) => name === 'kept'));
  await end(again);
  const wrong = url.replace(/\/t\d+\?/, '/nosuch?');
  assert.match(await refusal(launch('wrong', [], { DATABASE_URL: wrong })), /nosuch.* does not exist/);
});

test('makes a new key where the kept one was revoked', async () => {
  const child = launch('revoked');
  const thaw = await ready(child);
  const made = await (await ask(thaw, 'POST', '/v1/keys', { name: 'other', operator: true })).json();
  const { key } = made as { key: string };
  const keys = (await (await ask(thaw, 'GET', '/v1/keys')).json()) as { id: string; name: string }[];
  const own = keys.find(({ name }) => name === 'operator')!;
  assert.equal((await ask({ ...thaw, key }, 'DELETE', `/v1/keys/${own.id}`)).status, 204);
  await end(child);
  const next = launch('revoked');
  const again = await ready(next);
  assert.notEqual(again.key, thaw.key);
  assert.equal((await ask(again, 'GET', '/v1/sandboxes')).status, 200);
  assert.equal((await ask({ ...again, key: thaw.key }, 'GET', '/v1/sandboxes')).status, 401);
  await end(next);
});

test('the database is out of reach of other users', async () => {
  const child = launch('closed');
  await ready(child);
  const psql = path.join(folder, 'psql');
  const installed = execFileSync('sh', ['-c', 'ls /usr/lib/postgresql/*/bin/psql'], {
    encoding: 'utf8',
  }).split('\n')[0]!;
  await copyFile(installed, psql);
  const connect = (uid: number) =>
    execFileSync(
      psql,
      ['-h', path.join(folder, 'closed/run/postgres'), '-U', 'thaw', '-c', 'select 1', 'thaw'],
      {
        uid,
        stdio: 'pipe',
      },
    );
  for (const uid of [0, 65534]) assert.throws(() => connect(uid), /denied|failed/);
  await end(child);
});

/** A certificate for 127.0.0.1 that nobody has signed but itself. */
function makeCertificate(file: string): { cert: string; key: string } {
  const files = { cert: path.join(folder, `${file}.pem`), key: path.join(folder, `${file}.key`) };
  const subject = ['-subj', '/CN=thaw', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const out = ['-keyout', files.key, '-out', files.cert];
  execFileSync('openssl', ['req', '-x509', ...kind, ...subject, ...out], { stdio: 'pipe' });
  return files;
}

/** The body of an answer, from a server whose certificate is `ca`. */
async function getSecurely(url: string, key: string, ca: Buffer): Promise<string> {
  const request = https.get(url, { ca, agent: false, headers: { 'X-API-Key': key } });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return text(response);
}

test('serves HTTPS with a certificate, and takes up a renewed one', async () => {
  const { cert, key } = makeCertificate('first');
  const child = launch('tls', ['--tls-cert', cert, '--tls-key', key]);
  const thaw = await ready(child);
  assert.match(thaw.url, /^https:/);
  const first = await readFile(cert);
  assert.equal(await getSecurely(`${thaw.url}/v1/sandboxes`, thaw.key, first), '[]');
  await assert.rejects(fetch(`${thaw.url.replace('https', 'http')}/healthz`));
  const lent = path.join(folder, 'tls/run/tls');
  assert.equal((await stat(path.join(lent, 'key.pem'))).mode & 0o777, 0o400);

  const renewed = makeCertificate('second');
  await copyFile(renewed.key, key);
  await copyFile(renewed.cert, cert);
  const second = await readFile(renewed.cert);
  await until(async () => (await getSecurely(`${thaw.url}/v1/sandboxes`, thaw.key, second)) === '[]');
  await end(child);
  assert.equal(existsSync(lent), false);
});

test('serves ports of sandboxes beside the API, by HTTPS too, and at the same ports again', async () => {
  const { cert, key } = makeCertificate('proxy');
  const tls = { THAW_PROXY_TLS_LISTEN: '127.0.0.1:0', THAW_PROXY_TLS_CERT: cert, THAW_PROXY_TLS_KEY: key };
  const child = launch('ports', [], tls);
  const thaw = await ready(child);
  const missing = async () => {
    const host = { headers: { Host: '1-sb00000000000000000000.x.y' } };
    const options = { ...host, rejectUnauthorized: false, agent: false as const };
    return await new Promise<string>((resolve, reject) => {
      const asked = https.get(thaw.proxy_tls_url!, options, (answer) => text(answer).then(resolve, reject));
      asked.on('error', reject);
    });
  };
  assert.match(await missing(), /The sandbox was not found/);
  const plain = await fetch(thaw.proxy_url!);
  assert.deepEqual([plain.status, (await plain.text()).includes('no sandbox is named')], [400, true]);
  const plane = (await processes()).find(({ line }) => line.includes('control-plane/src/main.ts'))!;
  process.kill(plane.pid, 'SIGKILL');
  await until(async () => /not found/.test(await missing()));
  const taken = { THAW_PROXY_LISTEN: new URL(thaw.proxy_url!).host };
  assert.match(
    await refusal(launch('taken', [], taken)),
    /THAW_PROXY_LISTEN is 127\.0\.0\.1:\d+: another program listens there/,
  );
  await end(child);
  const off = launch('ports', [], { THAW_PROXY_LISTEN: 'off' });
  assert.equal((await ready(off)).proxy_url, undefined);
  await end(off);
});

test('refuses to serve clear text to a network unless told to', async () => {
  const open = { THAW_LISTEN: '0.0.0.0:0' };
  assert.match(await refusal(launch('open', [], open)), /clear text.*--tls-cert.*--insecure/);
  const proxy = { THAW_PROXY_LISTEN: '0.0.0.0:0' };
  assert.match(await refusal(launch('open', [], proxy)), /THAW_PROXY_LISTEN.*THAW_PROXY_TLS_LISTEN/);
  const child = launch('open', ['--insecure'], open);
  const { url } = await ready(child);
  assert.equal((await fetch(`${url}/healthz`)).status, 200);
  await end(child);
});

test('says what is wrong with a certificate', async () => {
  const { cert, key } = makeCertificate('good');
  const other = makeCertificate('other');
  assert.match(await refusal(launch('bad', ['--tls-cert', cert])), /go together/);
  assert.match(
    await refusal(launch('bad', [], { THAW_PROXY_TLS_CERT: cert })),
    /THAW_PROXY_TLS_CERT and THAW_PROXY_TLS_KEY go together/,
  );
  assert.match(
    await refusal(launch('bad', ['--tls-cert', cert, '--tls-key', other.key])),
    /is not the key of/,
  );
  assert.match(await refusal(launch('bad', ['--tls-cert', key, '--tls-key', key])), /is no certificate/);
  assert.match(await refusal(launch('bad', ['--tls-cert', cert, '--tls-key', cert])), /is no private key/);
  const missing = path.join(folder, 'nowhere.pem');
  assert.match(await refusal(launch('bad', ['--tls-cert', missing, '--tls-key', key])), /can not be read/);
});
