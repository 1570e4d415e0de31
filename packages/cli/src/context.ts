/** What every command gets besides its arguments. */

import type { Thaw } from '@thaw/sdk';
import { InvalidArgumentError } from 'commander';
import type { Progress } from './progress.ts';

export interface Context {
  /** Connects at the first call: help and usage errors need no key. */
  thaw(): Thaw;
  json: boolean;
  progress: Progress;
  /** Aborted by Ctrl-C, SIGTERM or SIGHUP. */
  signal: AbortSignal;
}

/** The command was cut short by a signal; nothing of it is left half-done. */
export class Interrupted extends Error {
  constructor(message = 'interrupted') {
    super(message);
    this.name = 'Interrupted';
  }
}

/**
 * Waits for what the server does anyway to its end, but not longer than until Ctrl-C; `afterwards` then says what
 * becomes of it.
 */
export async function unlessInterrupted<T>(
  { signal }: Context,
  work: Promise<T>,
  afterwards: (work: Promise<T>) => Promise<string>,
): Promise<T> {
  const interrupted = Promise.withResolvers<'interrupted'>();
  const interrupt = () => interrupted.resolve('interrupted');
  signal.addEventListener('abort', interrupt);
  if (signal.aborted) interrupt();
  try {
    const first = await Promise.race([work.then((value) => ({ value })), interrupted.promise]);
    if (first !== 'interrupted') return first.value;
  } finally {
    signal.removeEventListener('abort', interrupt);
  }
  throw new Interrupted(await afterwards(work));
}

/** A repeatable option. */
export function collect(text: string, texts: string[] = []): string[] {
  return [...texts, text];
}

/** A repeatable `NAME=VALUE` option. */
export function collectPairs(text: string, pairs: Record<string, string> = {}): Record<string, string> {
  const equals = text.indexOf('=');
  if (equals < 1) throw new InvalidArgumentError('It is NAME=VALUE.');
  return { ...pairs, [text.slice(0, equals)]: text.slice(equals + 1) };
}

export function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError('It is a whole number.');
  return Number(text);
}
