/** What clients ask for, and what came of it. */
import type { Random } from './random.ts';

export type Kind =
  | 'create'
  | 'spawn'
  | 'put'
  | 'get'
  | 'pause'
  | 'resume'
  | 'snapshot'
  | 'fork'
  | 'destroy'
  | 'forget'
  | 'list';

export interface Operation {
  kind: Kind;
  /** The sandbox, known for a create only afterwards. */
  sandbox: string | undefined;
  /** Of a snapshot, a spawn or a `forget`. */
  template: string | undefined;
  /** What a put writes. */
  value: number | undefined;
  overwrite: boolean;
  /** Of a create or spawn: commands wake it when it is paused. */
  autoResume: boolean;
  /** Of a resume: only its disk comes back. Of a pause: only its disk is kept. */
  cold: boolean;
  /** Turns of the scheduler; `end` is missing while it is under way. */
  start: number;
  end: number | undefined;
  /** Missing when the control plane ended under it, or the client left. */
  status: number | undefined;
  // biome-ignore lint/suspicious/noExplicitAny: what was answered, of any route
  body: any;
  left: boolean;
}

/** A sandbox as its clients know it. */
export interface Known {
  id: string;
  /** What the last answer said. */
  status: 'running' | 'paused' | 'error' | 'gone' | 'unknown';
  lastPut: number;
  autoResume: boolean;
}

const TEMPLATES = ['alpha', 'beta'];
const SANDBOXES_MAX = 6;

const WEIGHTS: Record<Known['status'], Partial<Record<Kind, number>>> = {
  running: { put: 6, get: 2, pause: 5, snapshot: 2.5, fork: 1, destroy: 1, resume: 0.5 },
  paused: { resume: 7, snapshot: 2, fork: 0.5, destroy: 1, pause: 0.5, get: 1, put: 1 },
  error: { resume: 6, destroy: 1, get: 0.5, pause: 0.5, snapshot: 0.5, fork: 0.5 },
  unknown: { put: 2, get: 2, pause: 2, resume: 2, snapshot: 1, destroy: 0.5 },
  gone: { get: 1, destroy: 1, resume: 0.5, pause: 0.5 },
};

/** The next thing some client wants; about the sandboxes it knows, whatever others are doing to them. */
export function nextOperation(random: Random, known: readonly Known[], start: number): Operation {
  const operation = (kind: Kind, more: Partial<Operation> = {}): Operation => ({
    kind,
    sandbox: undefined,
    template: undefined,
    value: undefined,
    overwrite: false,
    autoResume: false,
    cold: false,
    start,
    end: undefined,
    status: undefined,
    body: undefined,
    left: false,
    ...more,
  });
  const live = known.filter(({ status }) => status !== 'gone');
  const template = random.pick(TEMPLATES);
  if (live.length === 0 || (live.length < SANDBOXES_MAX && random.chance(0.15))) {
    const autoResume = random.chance(0.4);
    return random.chance(0.35)
      ? operation('spawn', { template, autoResume })
      : operation('create', { autoResume });
  }
  if (random.chance(0.04)) return operation('forget', { template });
  if (random.chance(0.03)) return operation('list');
  const { id, status } = random.pick(random.chance(0.95) ? live : known);
  const kind = random.weighted<Kind>(WEIGHTS[status]);
  switch (kind) {
    case 'put':
      return operation(kind, { sandbox: id, value: start });
    case 'resume':
    case 'pause':
      return operation(kind, { sandbox: id, cold: random.chance(0.15) });
    case 'snapshot':
      return operation(kind, { sandbox: id, template, overwrite: random.chance(0.6) });
    default:
      return operation(kind, { sandbox: id });
  }
}

export interface Asked {
  method: 'GET' | 'POST' | 'DELETE';
  url: string;
  body?: object;
}

export function requestOf(operation: Operation): Asked {
  const { kind, sandbox, template, value, overwrite, autoResume, cold } = operation;
  const url = `/v1/sandboxes/${sandbox}`;
  const policy = { timeout_sec: 0, auto_resume: autoResume };
  switch (kind) {
    case 'create':
      return { method: 'POST', url: '/v1/sandboxes', body: { memory_mb: 128, disk_mb: 1, ...policy } };
    case 'spawn':
      return { method: 'POST', url: '/v1/sandboxes', body: { template, ...policy } };
    case 'put':
      return { method: 'POST', url: `${url}/exec`, body: { cmd: 'put', args: [String(value)] } };
    case 'get':
      return { method: 'POST', url: `${url}/exec`, body: { cmd: 'get' } };
    case 'pause':
      return { method: 'POST', url: `${url}/pause`, body: { memory: !cold } };
    case 'resume':
      return { method: 'POST', url: `${url}/resume`, body: { memory: !cold } };
    case 'snapshot': {
      const body = { sandbox_id: sandbox, name: template };
      return { method: 'POST', url: `/v1/snapshots${overwrite ? '?overwrite=true' : ''}`, body };
    }
    case 'fork':
      return { method: 'POST', url: `${url}/fork`, body: { count: 2 } };
    case 'destroy':
      return { method: 'DELETE', url };
    case 'forget':
      return { method: 'DELETE', url: `/v1/snapshots/${template}` };
    case 'list':
      return { method: 'GET', url: '/v1/sandboxes' };
  }
}
