import { randomUUID } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import type { BuildId } from '@thaw/snapshot';
import type { Steps } from '../os/step.ts';
import type { BuildFiles } from './paths.ts';
import { removeTemporary, unnameBuild } from './remove.ts';
import type { BuildStore } from './store.ts';

/**
 * A build being written: a temporary folder whose files others fill. Disposing removes it, sealed or not, unless a head
 * was pointed at it.
 */
export interface OpenBuild extends AsyncDisposable {
  readonly id: BuildId;
  readonly files: BuildFiles;
}

/** Makes the temporary folder of a new build, for root alone. */
export async function beginBuild(store: BuildStore, steps: Steps, verb: string): Promise<OpenBuild> {
  const id = randomUUID();
  const files = store.paths.temporary(id);
  const hold = store.holds.take([id]);
  const dispose = async () => {
    try {
      if (store.pending.delete(id)) {
        store.unreleased.add(id);
        await unnameBuild(store, id);
        store.unreleased.delete(id);
      }
      store.unnamed.add(id);
      await removeTemporary(store, id);
      store.unnamed.delete(id);
    } finally {
      hold[Symbol.dispose]();
    }
  };
  try {
    await steps.run(`${verb}:begin-build`, () => mkdir(files.dir, { mode: 0o700 }));
  } catch (error) {
    await dispose();
    throw error;
  }
  return { id, files, [Symbol.asyncDispose]: dispose };
}
