/** A chain of builds as descriptors for a child: the request's fields name them by index. */
import type { FdSource } from '../keeper/keeper.ts';
import type { Chain } from './vmm.ts';

/** Every build of a chain is a descriptor of pager and block store, at a commit those of two chains. */
export const NOFILE_MAX = 4096;

export interface ChainFields {
  header?: number;
  builds?: Record<string, number>;
}

/** Appends the chain's files to `fds` and returns the fields that name them. */
export function addChain(fds: FdSource[], chain: Chain | undefined): ChainFields {
  if (chain === undefined) return {};
  const header = fds.push({ open: chain.header, flags: 'r' }) - 1;
  const builds: Record<string, number> = {};
  for (const [id, file] of Object.entries(chain.builds)) {
    builds[id] = fds.push({ open: file, flags: 'r' }) - 1;
  }
  return { header, builds };
}
