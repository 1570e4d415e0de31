/** A Thaw with its proxy, in clear text and by TLS, on the host that `ownHost` made, and what its users set. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { ip } from '../../packages/host-agent/src/network/fixture/own-host.ts';
import { run } from '../../packages/host-agent/src/os/run.ts';
import { startThaw, type TestThaw } from '../e2e/harness.ts';
import { INTERNET } from '../e2e/own-host.ts';
import type { Mode } from './sdks.ts';

const PLAIN = '127.0.0.1:8081';
const TLS = '127.0.0.1:8443';
/** Every name below `localhost` is this machine, where libnss-myhostname is installed. */
const DOMAIN = 'sbx.localhost';
/** Another address that answers in the internet. */
const ELSEWHERE = '198.51.100.7';
/** Whom guests ask for names, and what it knows. */
const RESOLVER = '8.8.8.8';
const THIRD = '198.51.100.8';
const NAMES = { 'one.thaw.test': INTERNET, 'two.thaw.test': ELSEWHERE, 'a.b.thaw.test': THIRD };
const FIXTURE = path.join(import.meta.dirname, '../../packages/host-agent/src/network/fixture');

export class Deployment implements AsyncDisposable {
  readonly thaw: TestThaw;
  readonly #ca: string;
  readonly #poorKey: string;
  readonly #ending: AsyncDisposableStack;

  private constructor(thaw: TestThaw, ca: string, poorKey: string, ending: AsyncDisposableStack) {
    this.thaw = thaw;
    this.#ca = ca;
    this.#poorKey = poorKey;
    this.#ending = ending;
  }

  static async start(env: Record<string, string> = {}): Promise<Deployment> {
    await using undo = new AsyncDisposableStack();
    const folder = await mkdtemp(path.join(os.tmpdir(), 'thaw-conformance-'));
    undo.defer(() => rm(folder, { recursive: true, force: true }));
    const { ca, cert, key } = await certificates(folder);
    const addresses = [ELSEWHERE, THIRD, RESOLVER];
    await ip(
      addresses.map((address) => `addr add ${address}/32 dev lo`),
      'internet',
    );
    const zone = path.join(folder, 'zone.json');
    await writeFile(zone, JSON.stringify(Object.fromEntries(Object.entries(NAMES).map(record))));
    undo.defer(await inInternet('peer.ts', 'serve', '80'));
    undo.defer(await inInternet('name-server.ts', 'serve', zone));
    const thaw = await startThaw({
      env: {
        THAW_PROXY_LISTEN: PLAIN,
        THAW_PROXY_TLS_LISTEN: TLS,
        THAW_PROXY_TLS_CERT: cert,
        THAW_PROXY_TLS_KEY: key,
        THAW_DOMAIN: `${DOMAIN}:${TLS.split(':')[1]}`,
        ...env,
      },
    });
    undo.defer(() => thaw.end());
    const poor = await thaw.sdk.keys.create({ name: 'one sandbox', quota: { sandboxes: 1 } });
    return new Deployment(thaw, ca, poor.key, undo.move());
  }

  /** What a user sets for an SDK: in clear text two URLs, by TLS the domain and who signed. */
  env(mode: Mode): Record<string, string> {
    const common = {
      PATH: process.env.PATH ?? '',
      HOME: process.env.HOME ?? '/root',
      E2B_API_KEY: this.thaw.key,
      THAW_TEST_INTERNET: INTERNET,
      THAW_TEST_ELSEWHERE: ELSEWHERE,
      THAW_TEST_POOR_KEY: this.#poorKey,
    };
    if (mode === 'plain') {
      return { ...common, E2B_API_URL: this.thaw.url, E2B_SANDBOX_URL: `http://${PLAIN}` };
    }
    const domain = `${DOMAIN}:${TLS.split(':')[1]}`;
    return { ...common, E2B_DOMAIN: domain, NODE_EXTRA_CA_CERTS: this.#ca, SSL_CERT_FILE: this.#ca };
  }

  /** Asserts that nothing is left on the host. */
  async stop(): Promise<void> {
    await this.thaw.stop();
    await this.#ending.disposeAsync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ending.disposeAsync();
  }
}

/** A certificate authority of the test's own, and its certificate for every name below the domain. */
async function certificates(folder: string): Promise<{ ca: string; cert: string; key: string }> {
  const file = (name: string) => path.join(folder, name);
  const openssl = (...args: string[]) => run(['openssl', ...args]);
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2'];
  const made = { ca: file('ca.pem'), cert: file('cert.pem'), key: file('key.pem') };
  await openssl('req', '-x509', ...key, '-subj', '/CN=Thaw test', '-keyout', file('ca.key'), '-out', made.ca);
  const names = `subjectAltName=DNS:*.${DOMAIN},DNS:${DOMAIN}`;
  await openssl(
    ...['req', '-x509', ...key, '-subj', `/CN=${DOMAIN}`, '-addext', names],
    ...['-addext', 'basicConstraints=critical,CA:FALSE', '-CA', made.ca, '-CAkey', file('ca.key')],
    ...['-keyout', made.key, '-out', made.cert],
  );
  // The proxy's user reads them.
  await run(['chmod', '-R', 'a+rX', folder]);
  return made;
}

function record([name, data]: [string, string]): [string, object[]] {
  return [name, [{ type: 'A', name, data, ttl: 60 }]];
}

/** A program of the internet, once it says that it is ready; what ends it. */
async function inInternet(file: string, ...args: string[]): Promise<() => Promise<void>> {
  const argv = ['netns', 'exec', 'internet', process.execPath, path.join(FIXTURE, file), ...args];
  const child = spawn('ip', argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return async () => {
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  };
}
