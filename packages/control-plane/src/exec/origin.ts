/**
 * Browsers send the page's origin with a WebSocket and let any page open one: only pages of ours and those that were
 * allowed may. Other programs send none.
 */
import { ThawError } from '@thaw/api';
import type { Config } from '../config.ts';

const LOOPBACK = ['127.0.0.1', '[::1]', 'localhost'];

export function originCheck(
  config: Pick<Config, 'listen' | 'allowedOrigins' | 'tls'>,
): (origin: string | undefined) => void {
  const hosts = [...LOOPBACK, config.listen.host];
  const allowed = new Set([
    ...config.allowedOrigins,
    ...hosts.map((host) => `${config.tls ? 'https' : 'http'}://${host}:${config.listen.port}`),
  ]);
  return (origin) => {
    if (origin === undefined || allowed.has(origin)) return;
    throw new ThawError('forbidden', 'pages of this origin may not connect; see THAW_ALLOWED_ORIGINS');
  };
}
