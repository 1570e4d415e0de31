/**
 * What a host has and no row wants: the rest of a create or a destroy that was cut off where nobody noticed. It is
 * destroyed when it was there for a while, but never what is older than this database: whoever has lost a database
 * must not lose the sandboxes too. Nor what is paused: no verb that was cut off leaves that, but a database that was put
 * back to an older state does.
 */
import type { SandboxInfo } from '@thaw/api/rpc';
import { databaseBirth } from '../db/birth.ts';
import type { Plane } from '../plane.ts';
import { findLive } from '../sandbox/table.ts';

export class Orphans {
  readonly #plane: Plane;
  readonly #graceMs: number;
  /** When each was first seen without a row. */
  readonly #seen = new Map<string, number>();
  readonly #spared = new Set<string>();
  #birth: Date | undefined;

  constructor(plane: Plane, graceMs: number) {
    this.#plane = plane;
    this.#graceMs = graceMs;
  }

  /** `infos` is what the host says. Answers how many were destroyed. */
  async sweep(infos: readonly SandboxInfo[]): Promise<number> {
    const { db, verbs } = this.#plane;
    // Rows are written before the host hears of a sandbox, so one that the host has told of has its row by now.
    const live = await findLive(
      db,
      infos.map(({ sandboxId }) => sandboxId),
    );
    const unwanted = infos.filter(({ sandboxId }) => !live.has(sandboxId) && !verbs.has(sandboxId));
    const ids = new Set(unwanted.map(({ sandboxId }) => sandboxId));
    for (const id of this.#seen.keys()) if (!ids.has(id)) this.#seen.delete(id);
    let destroyed = 0;
    for (const info of unwanted) {
      const since = this.#seen.get(info.sandboxId) ?? performance.now();
      this.#seen.set(info.sandboxId, since);
      if (performance.now() - since < this.#graceMs || !(await this.#isOurs(info))) continue;
      await this.#destroy(info);
      destroyed += 1;
    }
    return destroyed;
  }

  async #isOurs(info: SandboxInfo): Promise<boolean> {
    this.#birth ??= await databaseBirth(this.#plane.db);
    const isYounger = Number(info.createdAtUnix) * 1000 >= this.#birth.getTime();
    if (isYounger && info.status !== 'paused') return true;
    if (!this.#spared.has(info.sandboxId)) {
      this.#spared.add(info.sandboxId);
      const text =
        'the host has a sandbox that this database does not know, paused or older than it: it is kept';
      this.#plane.log.warn({ sandbox: info.sandboxId, status: info.status }, text);
    }
    return false;
  }

  async #destroy({ sandboxId, status }: SandboxInfo): Promise<void> {
    const { verbs, host, log } = this.#plane;
    await verbs.run(sandboxId, 'expire', `sandbox ${sandboxId} is stopping`, () => host.destroy(sandboxId));
    this.#seen.delete(sandboxId);
    log.info({ sandbox: sandboxId, status }, 'destroyed a sandbox of the host that no row wants');
  }
}
