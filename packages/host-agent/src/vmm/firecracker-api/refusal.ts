/** What Firecracker says when it refuses a request, and what that means. */
import { ThawError } from '@thaw/api';

/**
 * `refused`: nothing happened, the process goes on. `fatal`: it ends by itself. `timeout`: it does not answer, and
 * must be killed. `gone`: there is no process any more.
 */
export type Outcome = 'refused' | 'fatal' | 'timeout' | 'gone';

/** Why, as far as it is known. */
export type Reason =
  | 'not-fresh'
  | 'bad-request'
  | 'state-missing'
  | 'state-damaged'
  | 'memory-missing'
  | 'memory-short'
  | 'huge-pages'
  | 'pager-missing'
  | 'pager-refused'
  | 'vsock-taken'
  | 'drive-missing'
  | 'tap-busy'
  | 'tap-missing'
  | 'interface-unknown'
  | 'disk-full'
  | 'path-missing'
  | 'wrong-state'
  | 'unknown';

export class FirecrackerError extends ThawError {
  readonly outcome: Outcome;
  readonly reason: Reason;

  /** `text`: its own words, kept as the cause. */
  constructor(call: string, outcome: Outcome, reason: Reason, text: string) {
    super(
      reason === 'disk-full' ? 'exhausted' : outcome === 'timeout' ? 'timeout' : 'internal',
      MESSAGES[reason],
      {
        cause: `${call}: ${outcome}: ${text}`,
      },
    );
    this.name = 'FirecrackerError';
    this.outcome = outcome;
    this.reason = reason;
  }
}

const MESSAGES: Record<Reason, string> = {
  'not-fresh': 'the VMM has been configured already',
  'bad-request': 'the VMM does not understand what it is asked',
  'state-missing': 'the device state is missing',
  'state-damaged': 'the device state is damaged, or of another version of the VMM',
  'memory-missing': 'the memory image is missing',
  'memory-short': 'the memory image is shorter than the memory',
  'huge-pages': 'memory in huge pages can only be served through userfaultfd',
  'pager-missing': 'the memory server does not listen',
  'pager-refused': 'the memory server does not let the VMM in',
  'vsock-taken': 'a socket of an earlier VMM is in the way',
  'drive-missing': 'the disk is missing',
  'tap-busy': 'the network interface is in use by another VMM',
  'tap-missing': 'the network interface is missing',
  'interface-unknown': 'the snapshot has no such network interface',
  'disk-full': "this host's disk is full",
  'path-missing': 'a folder that the VMM writes to is missing',
  'wrong-state': 'the VM is not in the state for that',
  unknown: 'the VMM failed',
};

/** By their words, the more exact ones first. */
const WORDS: readonly [RegExp, Reason][] = [
  [/not allowed after configuring boot-specific resources/, 'not-fresh'],
  [/deserializing the json body|id from the path does not match|IDs can only contain/, 'bad-request'],
  [/Failed to open snapshot file/, 'state-missing'],
  [/Failed to load snapshot state from file/, 'state-damaged'],
  [/hugetlbfs backed snapshot/, 'huge-pages'],
  [/guest memory from uffd: Failed to connect.*Permission denied/, 'pager-refused'],
  [/guest memory from uffd/, 'pager-missing'],
  [/Total sum of memory regions exceeds|past the end of the file/, 'memory-short'],
  [/guest memory from file/, 'memory-missing'],
  [/VsockUnixBackend.*Address already in use/, 'vsock-taken'],
  [/Unknown Network Device/, 'interface-unknown'],
  [/TUN\/TAP.*|creating ifreq structure.*/, 'tap-missing'],
  [/Error manipulating the backing file/, 'drive-missing'],
  [/No space left on device|os error 28/, 'disk-full'],
  [/Cannot perform open on the snapshot backing file|No such file or directory/, 'path-missing'],
  [/not supported (before|after) starting|unavailable while running/, 'wrong-state'],
];

export function reasonOf(text: string): Reason {
  if (/Resource busy|os error 16|resource busy/i.test(text)) return 'tap-busy';
  return WORDS.find(([words]) => words.test(text))?.[1] ?? 'unknown';
}

/** A load that fails for any other reason than these takes the process with it. */
export function outcomeOf(call: string, reason: Reason): Outcome {
  const isLoad = call === 'PUT /snapshot/load';
  return isLoad && reason !== 'not-fresh' && reason !== 'bad-request' ? 'fatal' : 'refused';
}

/**
 * The words of an answer that is no success: `fault_message`, or `error` of the HTTP layer, which may be no valid JSON.
 */
export function wordsOf(body: string): string {
  try {
    const parsed = JSON.parse(body) as { fault_message?: unknown; error?: unknown };
    const words = parsed.fault_message ?? parsed.error;
    if (typeof words === 'string') return words;
  } catch {
    // A raw line break within a string: the text says enough.
  }
  return body.trim().slice(0, 2000);
}
