/** Every sandbox of this host by id: running, paused or broken. */
import { ThawError } from '@thaw/api';
import type { Sandbox } from './sandbox.ts';

export class Registry {
  readonly #sandboxes = new Map<string, Sandbox>();

  /** Throws `already_exists` when the id is taken. */
  add(sandbox: Sandbox): void {
    if (this.#sandboxes.has(sandbox.id)) {
      throw new ThawError('already_exists', 'a sandbox with this id exists');
    }
    this.#sandboxes.set(sandbox.id, sandbox);
  }

  remove(sandbox: Sandbox): void {
    if (this.#sandboxes.get(sandbox.id) === sandbox) this.#sandboxes.delete(sandbox.id);
  }

  /** Throws `not_found`. */
  get(id: string): Sandbox {
    const sandbox = this.#sandboxes.get(id);
    if (sandbox === undefined) throw new ThawError('not_found', 'no such sandbox on this host');
    return sandbox;
  }

  has(id: string): boolean {
    return this.#sandboxes.has(id);
  }

  all(): Sandbox[] {
    return [...this.#sandboxes.values()];
  }
}
