/** What a row should become, judged by what the host says. Pure: no database, no host. */
import { isDeepStrictEqual } from 'node:util';
import type { NetworkPolicy, SandboxStatus } from '@thaw/api';
import type { Network, SandboxInfo } from '@thaw/api/rpc';
import { toNetwork } from '../host/agent.ts';

export type Verdict =
  | { kind: 'keep' }
  /** The host knows better. */
  | { kind: 'follow'; info: SandboxInfo }
  /** The host does not know it. */
  | { kind: 'become'; status: 'error' | 'stopped'; reason?: string }
  /** It runs, but its guest may not reach what the row says. */
  | { kind: 'network' }
  /** It was to be destroyed and is not yet. */
  | { kind: 'destroy' };

const KEEP: Verdict = { kind: 'keep' };
const SETTLED: readonly string[] = ['running', 'paused', 'error'];

export function verdict(
  row: {
    status: SandboxStatus;
    build_id: string | null;
    network: NetworkPolicy;
    access_token: string | null;
  },
  info: SandboxInfo | undefined,
): Verdict {
  // A pending row whose create was cut off is destroyed too: its caller never learned the id.
  if (row.status === 'stopping') return { kind: 'destroy' };
  if (info) {
    // It is at work on it, or says what this version does not know.
    if (!SETTLED.includes(info.status)) return KEEP;
    if (row.status === 'pending') return { kind: 'destroy' };
    const same =
      info.status === row.status &&
      (info.build === undefined || info.build.id === row.build_id) &&
      info.accessToken === (row.access_token ?? '');
    if (!same) return { kind: 'follow', info };
    return row.status === 'running' && info.network && !isSame(row.network, info.network)
      ? { kind: 'network' }
      : KEEP;
  }
  switch (row.status) {
    case 'pending':
      return { kind: 'destroy' };
    case 'paused':
    case 'error':
    case 'stopped':
      return KEEP;
    case 'running':
      if (row.build_id === null) return { kind: 'become', status: 'stopped' };
      return {
        kind: 'become',
        status: 'error',
        reason: 'its host lost it; resume goes on from its last build',
      };
    case 'pausing':
    case 'resuming':
    case 'snapshotting':
      return { kind: 'become', status: 'error', reason: `its host lost it while it was ${row.status}` };
  }
}

function isSame(policy: NetworkPolicy, network: Network): boolean {
  const { internet, allowOut, denyOut, allowDomains, dnsServers } = network;
  return isDeepStrictEqual(toNetwork(policy), { internet, allowOut, denyOut, allowDomains, dnsServers });
}
