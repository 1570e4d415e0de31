/** Tells whoever watches a database in this process of every row as it is moved there, before its mover goes on. */
import type { Database } from '../db/connect.ts';
import type { SandboxRow } from './table.ts';

export interface Watcher {
  moved(row: SandboxRow): void;
  removed(id: string): void;
}

const watchers = new WeakMap<Database, Set<Watcher>>();

export function watchSandboxes(db: Database, watcher: Watcher): Disposable {
  const all = watchers.get(db) ?? new Set();
  watchers.set(db, all.add(watcher));
  return { [Symbol.dispose]: () => void all.delete(watcher) };
}

/** What is moved in a transaction may be taken back: nobody watches a transaction's handle. */
export function watchersOf(db: Database): Iterable<Watcher> {
  return watchers.get(db) ?? [];
}
