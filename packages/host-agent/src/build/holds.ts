import type { BuildId } from '@thaw/snapshot';

/** Builds in use by this process's sandboxes and verbs, counted: none of them is removed. */
export class Holds {
  readonly #counts = new Map<BuildId, number>();

  /** Holds `ids` until the result is disposed; disposing twice does nothing more. */
  take(ids: Iterable<BuildId>): Disposable {
    let held = [...ids];
    for (const id of held) this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        for (const id of held) this.#drop(id);
        held = [];
      },
    };
  }

  has(id: BuildId): boolean {
    return this.#counts.has(id);
  }

  ids(): BuildId[] {
    return [...this.#counts.keys()];
  }

  #drop(id: BuildId): void {
    const left = this.#counts.get(id)! - 1;
    if (left === 0) this.#counts.delete(id);
    else this.#counts.set(id, left);
  }
}
