/** Whose token made a signature. Trying them all costs time, so what was found is kept and strangers have a budget. */
import { refuse } from './refusal.ts';
import type { Route } from './route.ts';
import { isSignedWith, type Signed } from './signature.ts';

const KEPT_MAX = 1_000;
/** Tokens that are tried in a second, for all requests together: some tens of milliseconds. */
const TRIES_PER_SEC = 20_000;

export class Signatures {
  readonly #routes: () => Iterable<Route>;
  /** Sandbox ids by signature; the oldest first. */
  readonly #found = new Map<string, string>();
  #budget = TRIES_PER_SEC;
  #filledAt = performance.now();

  constructor(routes: () => Iterable<Route>) {
    this.#routes = routes;
  }

  /** The sandbox's id; undefined if it is no sandbox's. Throws a `Refusal` when too many were tried in vain. */
  owner(signed: Signed): string | undefined {
    const key = signed.signature + signed.before + signed.after;
    const known = this.#found.get(key);
    if (known !== undefined) return known;
    this.#fill();
    if (this.#budget <= 0) throw refuse.tooMany(undefined, 'Too many requests, try again');
    for (const { id, accessToken } of this.#routes()) {
      if (accessToken === null) continue;
      this.#budget -= 1;
      if (!isSignedWith(signed, accessToken)) continue;
      this.#keep(key, id);
      return id;
    }
    return undefined;
  }

  #fill(): void {
    const now = performance.now();
    this.#budget = Math.min(TRIES_PER_SEC, this.#budget + ((now - this.#filledAt) * TRIES_PER_SEC) / 1000);
    this.#filledAt = now;
  }

  #keep(key: string, id: string): void {
    this.#found.set(key, id);
    if (this.#found.size <= KEPT_MAX) return;
    const [oldest] = this.#found.keys();
    this.#found.delete(oldest!);
  }
}
