/** What every verb of the control plane works with. */
import type { Logger } from 'pino';
import type { Audit } from './audit/audit.ts';
import type { Database } from './db/connect.ts';
import type { History } from './event/history.ts';
import type { HostAgent } from './host/agent.ts';
import type { Activity } from './sandbox/activity.ts';
import type { InFlight } from './sandbox/in-flight.ts';

export interface Plane {
  /** Tells this process from other control planes on the same database. */
  id: number;
  db: Database;
  host: HostAgent;
  hostId: string;
  log: Logger;
  /** Verbs on sandboxes, by sandbox id. */
  verbs: InFlight;
  /** Verbs on templates, by `verbKey`. */
  templateVerbs: InFlight;
  activity: Activity;
  history: History;
  audit: Audit;
  /** The domain under which clients reach guests' ports, `sbx.localhost:3443` for instance; null: none. */
  domain: string | null;
}
