/** Traffic that wakes paused sandboxes: each is resumed once, however many wait for it. */
import { ThawError } from '@thaw/api';
import { duringRequest } from '../http/request.ts';
import type { Plane } from '../plane.ts';
import { enter } from '../sandbox/enter.ts';
import { untilMoved } from '../sandbox/until-moved.ts';
import { proxyOpen, proxyWakes } from './metrics.ts';
import type { Route } from './route.ts';

/** Whoever comes so soon after a resume that failed gets its error: traffic must not keep a host busy with failing. */
const FAILED_FOR_MS = 2_000;
/** The actor of what it does, in a sandbox's history. */
const ACTOR = 'traffic';

export class Wakes {
  readonly #plane: Plane;
  readonly #waitingMax: number;
  readonly #under = new Map<string, Promise<void>>();
  #waiting = 0;

  constructor(plane: Plane, waitingMax: number) {
    this.#plane = plane;
    this.#waitingMax = waitingMax;
  }

  /**
   * Resolves when the sandbox may be where traffic reaches it, or somewhere else than it was. Throws `exhausted` when
   * too many wait already, and what the resume throws.
   */
  async wake(route: Route, requestId: string, gone: AbortSignal): Promise<void> {
    if (this.#waiting >= this.#waitingMax) throw new ThawError('exhausted', 'too many requests wait');
    this.#count(1);
    const left = Promise.withResolvers<never>();
    const leave = () => left.reject(new Error('the client is gone'));
    gone.addEventListener('abort', leave);
    if (gone.aborted) leave();
    try {
      await Promise.race([this.#once(route, requestId), left.promise]);
    } finally {
      gone.removeEventListener('abort', leave);
      this.#count(-1);
    }
  }

  #count(change: 1 | -1): void {
    this.#waiting += change;
    proxyOpen.inc({ kind: 'waiting' }, change);
  }

  #once(route: Route, requestId: string): Promise<void> {
    const under = this.#under.get(route.id);
    if (under !== undefined) return under;
    const waking = duringRequest({ id: requestId, actor: ACTOR }, () => this.#start(route));
    this.#under.set(route.id, waking);
    const forget = () => this.#under.delete(route.id);
    waking.then(forget, () => setTimeout(forget, FAILED_FOR_MS).unref());
    return waking;
  }

  async #start(route: Route): Promise<void> {
    const { id, teamId, status } = route;
    if (status !== 'paused' && status !== 'resuming') {
      // Only when it has been paused it is known whether traffic may wake what was kept of it.
      await untilMoved(this.#plane, { id, team_id: teamId, status });
      return;
    }
    try {
      using _ = await enter(this.#plane, teamId, id);
      if (status === 'paused') proxyWakes.inc({ outcome: 'done' });
    } catch (error) {
      // It went elsewhere meanwhile: whoever waits sees where.
      if (error instanceof ThawError && (error.kind === 'invalid_state' || error.kind === 'not_found'))
        return;
      proxyWakes.inc({ outcome: 'failed' });
      throw error;
    }
  }
}
