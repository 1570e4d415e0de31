/** What the E2B API answers about sandboxes. Fields that its Python client requires are always there. */
import { z } from 'zod';

/** The version of the guest agent's protocol: clients switch features on by it. */
export const ENVD_VERSION = '0.6.13';
/** Deprecated, and required. */
export const CLIENT_ID = '00000000';

/** Answered by create, connect and fork. */
export const E2bSandbox = z.object({
  sandboxID: z.string(),
  templateID: z.string(),
  clientID: z.string(),
  envdVersion: z.string(),
  alias: z.string().optional(),
  envdAccessToken: z.string().optional(),
  trafficAccessToken: z.string().nullable(),
  domain: z.string().nullable(),
});
export type E2bSandbox = z.infer<typeof E2bSandbox>;

const State = z.enum(['running', 'paused']);

export const ListedSandbox = z.object({
  sandboxID: z.string(),
  templateID: z.string(),
  clientID: z.string(),
  alias: z.string().optional(),
  startedAt: z.string(),
  endAt: z.string(),
  cpuCount: z.number(),
  memoryMB: z.number(),
  diskSizeMB: z.number(),
  metadata: z.record(z.string(), z.string()),
  state: State,
  envdVersion: z.string(),
});
export type ListedSandbox = z.infer<typeof ListedSandbox>;

/** As clients see it; secrets are never told. */
export const E2bNetwork = z.object({
  allowOut: z.array(z.string()).optional(),
  denyOut: z.array(z.string()).optional(),
  dnsServers: z.array(z.string()).optional(),
  allowPublicTraffic: z.boolean().optional(),
  maskRequestHost: z.string().optional(),
  httpsPorts: z.array(z.number()).optional(),
});
export type E2bNetwork = z.infer<typeof E2bNetwork>;

export const SandboxDetail = ListedSandbox.extend({
  envdAccessToken: z.string().optional(),
  domain: z.string().nullable(),
  allowInternetAccess: z.boolean().nullable(),
  network: E2bNetwork,
  lifecycle: z.object({ onTimeout: z.enum(['kill', 'pause']), autoResume: z.boolean() }),
  pauseMode: z.enum(['full', 'filesystem']).optional(),
});
export type SandboxDetail = z.infer<typeof SandboxDetail>;
