/** The control plane's settings, read once from the environment. */
import { z } from 'zod';

const Listen = z
  .string()
  .regex(/^(\[[0-9a-f:]+\]|[^:\s]+):\d{1,5}$/i, 'must be host:port')
  .transform((value) => {
    const colon = value.lastIndexOf(':');
    return { host: value.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(value.slice(colon + 1)) };
  });

const Environment = z.object({
  DATABASE_URL: z.string().min(1).optional(),
  /** The embedded cluster's, set by `thaw up`. */
  THAW_DATABASE_URL: z.string().min(1).optional(),
  THAW_LISTEN: Listen.prefault('127.0.0.1:8080'),
  THAW_RUN: z.string().default('/run/thaw'),
  THAW_AGENT_SOCKET: z.string().optional(),
  /** Comma-separated origins whose pages may open a WebSocket, besides the listen address itself. */
  THAW_ALLOWED_ORIGINS: z.string().default(''),
  THAW_RECONCILE_MS: z.coerce.number().int().min(50).default(5000),
  THAW_LOG_LEVEL: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
});

export interface Config {
  databaseUrl: string;
  listen: { host: string; port: number };
  agentSocket: string;
  allowedOrigins: string[];
  reconcileMs: number;
  logLevel: string;
}

export function readConfig(env: NodeJS.ProcessEnv): Config {
  const parsed = Environment.safeParse(env);
  if (!parsed.success) throw new Error(`bad settings:\n${z.prettifyError(parsed.error)}`);
  const settings = parsed.data;
  const databaseUrl = settings.DATABASE_URL ?? settings.THAW_DATABASE_URL;
  if (!databaseUrl) throw new Error('no database: set DATABASE_URL, or start with `thaw up`');
  return {
    databaseUrl,
    listen: settings.THAW_LISTEN,
    agentSocket: settings.THAW_AGENT_SOCKET ?? `${settings.THAW_RUN}/agent.sock`,
    allowedOrigins: settings.THAW_ALLOWED_ORIGINS.split(',').filter((origin) => origin !== ''),
    reconcileMs: settings.THAW_RECONCILE_MS,
    logLevel: settings.THAW_LOG_LEVEL,
  };
}
