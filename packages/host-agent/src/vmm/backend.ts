/**
 * How the memory of a restored VM comes in:
 *
 *   uffd     its own, through the pager: a page is copied when it is first needed, or ahead of that
 *   mapped   the build's files, mapped privately: clones share what they only read
 */
import type { Header } from '@thaw/snapshot';
import type { Backend, VmmKit } from './vmm.ts';

export type BackendWish = 'auto' | Backend;

/** Each run of the header is a mapping: a quarter of a KiB in the kernel and some µs of each start (decision 0013). */
const RUNS_MAX = 4096;
/** Each build is a descriptor of the VMM until its memory is mapped; the keeper gives one so many and some more (exec.rs). */
const BUILDS_MAX = 256;

export interface Choice {
  backend: Backend;
  why: string;
}

export interface Restore {
  /** One of many that start from the build, not the sandbox that it is a pause of. */
  clone: boolean;
  memory: { header: Header; sources: { size: number } };
  kit: Pick<VmmKit, 'info' | 'backends'>;
}

export function chooseBackend(wish: BackendWish, { clone, memory, kit }: Restore): Choice {
  const uffd = (why: string) => ({ backend: 'uffd', why }) as const;
  if (!clone) return uffd('nobody else starts from the build of a pause');
  if (wish === 'uffd') return uffd('THAW_MEMORY asks for it');
  if (!kit.backends.includes('mapped')) return uffd(`${kit.info.vmm} can't map a build's memory`);
  const { header, sources } = memory;
  if (header.entries.length > RUNS_MAX || sources.size > BUILDS_MAX)
    return uffd(`the memory is in ${header.entries.length} pieces of ${sources.size} builds`);
  return {
    backend: 'mapped',
    why: wish === 'mapped' ? 'THAW_MEMORY asks for it' : 'clones share what they read',
  };
}
