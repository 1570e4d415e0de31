/** How the API is reached from outside: in clear text only where nobody can listen in, or where that was asked for. */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { unwatchFile, watchFile } from 'node:fs';
import { chmod, chown, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import { ThawError } from '@thaw/api';
import type { User } from './user.ts';

export interface TlsFiles {
  cert: string;
  key: string;
}

export interface ListenOptions {
  /** The setting that says where. */
  setting: string;
  /** `host:port`. */
  listen: string;
  tls: TlsFiles | undefined;
  /** Clear text off loopback was asked for. */
  insecure: boolean;
}

const WITH_TLS: Record<string, string> = {
  THAW_LISTEN: 'Give --tls-cert FILE and --tls-key FILE',
  THAW_PROXY_LISTEN: 'Give THAW_PROXY_TLS_LISTEN with THAW_PROXY_TLS_CERT and THAW_PROXY_TLS_KEY instead',
};
const RENEWED_EVERY_MS = 2000;
const ANSWER_WITHIN_MS = 5000;

/** Throws `invalid_request` for what is no address, and when keys and commands would cross a network in clear text without anybody's wish. */
export function requireSafeListen({ setting, listen, tls, insecure }: ListenOptions): void {
  if (!/^.+:\d{1,5}$/.test(listen))
    throw new ThawError('invalid_request', `${setting} is ${listen}: make it HOST:PORT`);
  if (tls !== undefined || insecure || isLoopback(hostOf(listen))) return;
  throw new ThawError(
    'invalid_request',
    `${setting} is ${listen}: keys and everything else would cross the network in clear text. ` +
      `${WITH_TLS[setting] ?? ''}, or --insecure if something in front of Thaw does the encryption`,
  );
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

function hostOf(listen: string): string {
  return listen.slice(0, listen.lastIndexOf(':')).replace(/^\[|\]$/g, '');
}

/** `host:port` of a URL, with the port also where it is the protocol's own. */
export function hostAndPort(url: string): string {
  const { hostname, port, protocol } = new URL(url);
  return `${hostname}:${port || (protocol === 'https:' ? 443 : 80)}`;
}

/** Both or none. Throws `invalid_request` for one alone; `names` are what they are given as. */
export function tlsFiles(
  cert: string | undefined,
  key: string | undefined,
  names = '--tls-cert and --tls-key',
): TlsFiles | undefined {
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined) throw new ThawError('invalid_request', `${names} go together`);
  return { cert: path.resolve(cert), key: path.resolve(key) };
}

/**
 * Copies of the operator's files that the control plane's user may read, in `folder`, kept up to date until disposed.
 * Throws `invalid_request` when they are no certificate and the key of it.
 */
export async function lendTls(
  files: TlsFiles,
  folder: string,
  user: User,
  onProblem: (text: string) => void,
): Promise<{ files: TlsFiles } & AsyncDisposable> {
  const lent = { cert: path.join(folder, 'cert.pem'), key: path.join(folder, 'key.pem') };
  const copy = async () => {
    const { cert, key } = await readPair(files);
    await place(lent.key, key, user);
    // Last: its change is what the control plane looks for.
    await place(lent.cert, cert, user);
  };
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await chown(folder, user.uid, user.gid);
  await copy();
  const renew = () =>
    void copy().catch((error) => onProblem(`the TLS certificate is not renewed: ${error.message}`));
  watchFile(files.cert, { interval: RENEWED_EVERY_MS, persistent: false }, renew);
  return {
    files: lent,
    async [Symbol.asyncDispose]() {
      unwatchFile(files.cert, renew);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function readPair(files: TlsFiles): Promise<{ cert: Buffer; key: Buffer }> {
  const read = (file: string) =>
    readFile(file).catch((error: NodeJS.ErrnoException) => {
      throw new ThawError('invalid_request', `${file} can not be read (${error.code})`);
    });
  const [cert, key] = await Promise.all([read(files.cert), read(files.key)]);
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(cert);
  } catch {
    throw new ThawError('invalid_request', `${files.cert} is no certificate in PEM`);
  }
  let fits: boolean;
  try {
    fits = certificate.checkPrivateKey(createPrivateKey(key));
  } catch {
    throw new ThawError('invalid_request', `${files.key} is no private key in PEM without a passphrase`);
  }
  if (!fits) throw new ThawError('invalid_request', `${files.key} is not the key of ${files.cert}`);
  if (Date.parse(certificate.validTo) < Date.now())
    throw new ThawError('invalid_request', `${files.cert} has expired on ${certificate.validTo}`);
  return { cert, key };
}

async function place(file: string, content: Buffer, user: User): Promise<void> {
  const fresh = `${file}.new`;
  await rm(fresh, { force: true });
  await writeFile(fresh, content, { mode: 0o400, flag: 'wx' });
  await chown(fresh, user.uid, user.gid);
  await chmod(fresh, 0o400);
  await rename(fresh, file);
}

/** Whether `GET url` is answered with 200. Whose certificate it is does not matter: this asks our own process. */
export function answers(url: string): Promise<boolean> {
  return new Promise((resolve) => {
    const settings = { timeout: ANSWER_WITHIN_MS, agent: false as const };
    const request = url.startsWith('https:')
      ? https.get(url, { ...settings, rejectUnauthorized: false })
      : http.get(url, settings);
    request.once('error', () => resolve(false));
    request.once('timeout', () => request.destroy(new Error('no answer')));
    request.once('response', (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
  });
}
