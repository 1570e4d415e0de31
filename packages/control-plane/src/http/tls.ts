/** HTTPS: a certificate and its key from files, read again when they are renewed. */
import { unwatchFile, watchFile } from 'node:fs';
import { readFile } from 'node:fs/promises';
import type { Server } from 'node:https';
import type { Logger } from 'pino';

export interface TlsFiles {
  /** PEM; the certificate first, then those that lead to a root. */
  cert: string;
  /** PEM, without a passphrase. */
  key: string;
}

export interface TlsMaterial {
  cert: Buffer;
  key: Buffer;
}

const RENEWED_EVERY_MS = 2000;

export async function readTls(files: TlsFiles): Promise<TlsMaterial> {
  const [cert, key] = await Promise.all([readFile(files.cert), readFile(files.key)]);
  return { cert, key };
}

/** New connections get the files' newest content; a pair that does not fit is logged and the old one stays. */
export function renewTls(server: Server, files: TlsFiles, log: Logger): Disposable {
  const renew = () => {
    readTls(files).then(
      (material) => {
        try {
          server.setSecureContext({ ...material, minVersion: 'TLSv1.2' });
          log.info('the TLS certificate was renewed');
        } catch (error) {
          log.error({ err: error }, 'the new TLS certificate does not work; the old one stays');
        }
      },
      (error) => log.error({ err: error }, 'the new TLS certificate can not be read; the old one stays'),
    );
  };
  // The certificate is written last: by then its key is there.
  watchFile(files.cert, { interval: RENEWED_EVERY_MS, persistent: false }, renew);
  return { [Symbol.dispose]: () => unwatchFile(files.cert, renew) };
}
