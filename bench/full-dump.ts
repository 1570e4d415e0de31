/**
 * The alternative to a tracked diff: stop the VMM, read every page of the guest's memory that is there, leave out
 * zero pages, write the rest.
 */
import fs from 'node:fs';

const PAGE = 4096;
const CHUNK = 256 * PAGE;
/** Bit 63 of an entry of /proc/PID/pagemap: the page is present (kernel, admin-guide/mm/pagemap). */
const PRESENT = 0x80;
const ENTRY = 8;

export interface FullDump {
  /** While the VMM was stopped. */
  ms: number;
  bytes: number;
}

/** Writes the memory of VMM `pid` into `file`, up to the page cache. */
export function fullDump(pid: number, memoryBytes: number, file: string): FullDump {
  const start = findMemory(pid, memoryBytes);
  using undo = new DisposableStack();
  const open = (path: string, flags: string) => {
    const fd = fs.openSync(path, flags);
    undo.defer(() => fs.closeSync(fd));
    return fd;
  };
  const memory = open(`/proc/${pid}/mem`, 'r');
  const pagemap = open(`/proc/${pid}/pagemap`, 'r');
  const out = open(file, 'w');
  process.kill(pid, 'SIGSTOP');
  const started = performance.now();
  try {
    const entries = Buffer.alloc((memoryBytes / PAGE) * ENTRY);
    fs.readSync(pagemap, entries, 0, entries.length, (start / PAGE) * ENTRY);
    const bytes = copy(memory, out, start, entries);
    return { ms: performance.now() - started, bytes };
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

function copy(memory: number, out: number, start: number, entries: Buffer): number {
  const zero = Buffer.alloc(PAGE);
  const from = Buffer.alloc(CHUNK);
  const to = Buffer.alloc(CHUNK);
  const pages = entries.length / ENTRY;
  let filled = 0;
  let total = 0;
  const flush = () => {
    fs.writeSync(out, to, 0, filled);
    total += filled;
    filled = 0;
  };
  const present = (page: number) => (entries[page * ENTRY + 7]! & PRESENT) !== 0;
  for (let page = 0; page < pages; ) {
    let end = page;
    while (end < pages && (end - page) * PAGE < CHUNK && present(end)) end++;
    if (end === page) {
      page++;
      continue;
    }
    const bytes = (end - page) * PAGE;
    fs.readSync(memory, from, 0, bytes, start + page * PAGE);
    for (let at = 0; at < bytes; at += PAGE) {
      if (from.compare(zero, 0, PAGE, at, at + PAGE) === 0) continue;
      from.copy(to, filled, at, at + PAGE);
      filled += PAGE;
      if (filled === CHUNK) flush();
    }
    page = end;
  }
  flush();
  return total;
}

/** The address of the VMM's only mapping that is as large as the guest's memory. */
function findMemory(pid: number, memoryBytes: number): number {
  for (const line of fs.readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')) {
    const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line) ?? [];
    if (from === undefined || to === undefined) continue;
    if (Number.parseInt(to, 16) - Number.parseInt(from, 16) === memoryBytes) return Number.parseInt(from, 16);
  }
  throw new Error('the VMM has no mapping of the size of its memory');
}
