/** The control plane's settings, read once from the environment. */
import { z } from 'zod';
import type { TlsFiles } from './http/tls.ts';
import type { ProxyConfig } from './proxy/proxy.ts';

const Listen = z
  .string()
  .regex(/^(\[[0-9a-f:]+\]|[^:\s]+):\d{1,5}$/i, 'must be host:port')
  .transform((value) => {
    const colon = value.lastIndexOf(':');
    return { host: value.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(value.slice(colon + 1)) };
  });

const PROXY_PORT = 8081;

const Environment = z.object({
  DATABASE_URL: z.string().min(1).optional(),
  /** The embedded cluster's, set by `thaw up`. */
  THAW_DATABASE_URL: z.string().min(1).optional(),
  THAW_LISTEN: Listen.prefault('127.0.0.1:8080'),
  /** Both or none: then the API is served by HTTPS. */
  THAW_TLS_CERT: z.string().min(1).optional(),
  THAW_TLS_KEY: z.string().min(1).optional(),
  /** Where guests' ports are reached in clear text; `off`: nowhere. */
  THAW_PROXY_LISTEN: z.union([z.literal('off'), Listen]).optional(),
  /** And by HTTPS, with a certificate for `*.{THAW_DOMAIN}`: all three or none. */
  THAW_PROXY_TLS_LISTEN: Listen.optional(),
  THAW_PROXY_TLS_CERT: z.string().min(1).optional(),
  THAW_PROXY_TLS_KEY: z.string().min(1).optional(),
  THAW_RUN: z.string().default('/run/thaw'),
  THAW_AGENT_SOCKET: z.string().optional(),
  /** Under which clients reach guests' ports: `{port}-{sandbox}.{domain}`. */
  THAW_DOMAIN: z
    .string()
    .regex(/^[a-z0-9.-]+(:\d{1,5})?$/, 'must be a domain, with a port if it is not 443')
    .optional(),
  /** Comma-separated origins whose pages may open a WebSocket, besides the listen address itself. */
  THAW_ALLOWED_ORIGINS: z.string().default(''),
  THAW_RECONCILE_MS: z.coerce.number().int().min(50).default(5000),
  /** How often the clock looks for sandboxes whose time is over. */
  THAW_CLOCK_MS: z.coerce.number().int().min(10).default(1000),
  /** Paused sandboxes are destroyed after this time; 0: never. */
  THAW_DELETE_PAUSED_AFTER_SEC: z.coerce.number().int().min(0).default(0),
  /** What was destroyed is forgotten after this time. */
  THAW_PURGE_STOPPED_AFTER_SEC: z.coerce.number().int().min(1).default(86_400),
  /** Lines of the audit log are forgotten after this time. */
  THAW_PURGE_AUDIT_AFTER_SEC: z.coerce.number().int().min(60).default(7_776_000),
  /** And the oldest ones of a team that has more than so many. */
  THAW_AUDIT_LINES_MAX: z.coerce.number().int().min(100).default(1_000_000),
  /** Comma-separated addresses and ranges of proxies that say in X-Forwarded-For where a request came from. */
  THAW_TRUSTED_PROXIES: z
    .string()
    .regex(/^[0-9a-f.:/, ]*$/i, 'must be addresses and ranges')
    .default(''),
  /** What a host has and no row wants is destroyed after this time. */
  THAW_ORPHAN_GRACE_SEC: z.coerce.number().min(0).default(300),
  /** Of the data folder that this host's sandboxes are in; `thaw up` sets it. */
  THAW_IDENTITY: z.string().min(1).max(64).optional(),
  /** 1: the database belongs to this data folder from now on, whoever it belonged to. */
  THAW_CLAIM_DATABASE: z.enum(['0', '1']).default('0'),
  THAW_LOG_LEVEL: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
});

/** How long what nobody uses is kept, in seconds. */
export interface Retention {
  /** 0: for ever. */
  deletePausedAfterSec: number;
  purgeStoppedAfterSec: number;
}

export interface AuditBounds {
  purgeAfterSec: number;
  /** Of each team, and of requests without a valid key. */
  linesMax: number;
}

export interface Config {
  databaseUrl: string;
  listen: { host: string; port: number };
  tls?: TlsFiles | undefined;
  proxy: ProxyConfig;
  agentSocket: string;
  domain: string | undefined;
  allowedOrigins: string[];
  reconcileMs: number;
  clockMs: number;
  retention: Retention;
  audit: AuditBounds;
  trustedProxies: string[];
  orphanGraceMs: number;
  identity: string | undefined;
  claimDatabase: boolean;
  logLevel: string;
}

type Settings = z.infer<typeof Environment>;

function tlsFiles(settings: Settings, prefix: 'THAW' | 'THAW_PROXY'): TlsFiles | undefined {
  const { [`${prefix}_TLS_CERT` as const]: cert, [`${prefix}_TLS_KEY` as const]: key } = settings;
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined)
    throw new Error(`${prefix}_TLS_CERT and ${prefix}_TLS_KEY go together`);
  return { cert, key };
}

function proxyConfig(settings: Settings): ProxyConfig {
  const { THAW_LISTEN: api, THAW_PROXY_LISTEN: wish, THAW_PROXY_TLS_LISTEN: tlsListen } = settings;
  const tls = tlsFiles(settings, 'THAW_PROXY');
  if ((tls === undefined) !== (tlsListen === undefined))
    throw new Error('THAW_PROXY_TLS_LISTEN, THAW_PROXY_TLS_CERT and THAW_PROXY_TLS_KEY go together');
  // Who lets the system choose the API's port does not want this one to be taken either.
  const unsaid = { host: '127.0.0.1', port: api.port === 0 ? 0 : PROXY_PORT };
  return { listen: wish === 'off' ? undefined : (wish ?? unsaid), tlsListen, tls };
}

/** Of a comma-separated list. */
function words(list: string): string[] {
  return list
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '');
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
    tls: tlsFiles(settings, 'THAW'),
    proxy: proxyConfig(settings),
    agentSocket: settings.THAW_AGENT_SOCKET ?? `${settings.THAW_RUN}/agent.sock`,
    domain: settings.THAW_DOMAIN,
    allowedOrigins: words(settings.THAW_ALLOWED_ORIGINS),
    reconcileMs: settings.THAW_RECONCILE_MS,
    clockMs: settings.THAW_CLOCK_MS,
    retention: {
      deletePausedAfterSec: settings.THAW_DELETE_PAUSED_AFTER_SEC,
      purgeStoppedAfterSec: settings.THAW_PURGE_STOPPED_AFTER_SEC,
    },
    audit: { purgeAfterSec: settings.THAW_PURGE_AUDIT_AFTER_SEC, linesMax: settings.THAW_AUDIT_LINES_MAX },
    trustedProxies: words(settings.THAW_TRUSTED_PROXIES),
    orphanGraceMs: settings.THAW_ORPHAN_GRACE_SEC * 1000,
    identity: settings.THAW_IDENTITY,
    claimDatabase: settings.THAW_CLAIM_DATABASE === '1',
    logLevel: settings.THAW_LOG_LEVEL,
  };
}
