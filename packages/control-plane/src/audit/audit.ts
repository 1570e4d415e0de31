/**
 * The audit log's writer. No request waits for its line: lines are written together, a moment later, in their order.
 * While the database is away they wait here; at the end of this process the last of them are written first.
 */
import type { Logger } from 'pino';
import { type Database, isOutage, throughOutage } from '../db/connect.ts';
import { newSortedId } from '../db/sorted-id.ts';
import { insertLines, type NewLine } from './table.ts';

const WRITE_AFTER_MS = 100;
const RETRY_AFTER_MS = 1000;
const AT_ONCE_MAX = 500;
/** Of about 300 bytes each. More can't wait, and are in this process' log only. */
const WAITING_MAX = 100_000;
const TARGET_CHARS_MAX = 512;
/** Of a key the characters that tell it from others may be shown. */
const KEY_IN_TEXT = /(e2b_[0-9a-f]{4})[0-9a-f]+/gi;

export type Line = Omit<NewLine, 'id' | 'created_at' | 'target'> & { targets: readonly string[] };

export class Audit {
  readonly #db: Database;
  readonly #log: Logger;
  readonly #waiting: NewLine[] = [];
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(db: Database, log: Logger) {
    this.#db = db;
    this.#log = log;
  }

  record({ targets, ...line }: Line): void {
    const target = clean([...new Set(targets)].join(' ')).slice(0, TARGET_CHARS_MAX);
    const whole: NewLine = { ...line, target, id: newSortedId('au'), created_at: new Date() };
    if (this.#waiting.length >= WAITING_MAX) return void this.#giveUp(whole);
    this.#waiting.push(whole);
    this.#later(WRITE_AFTER_MS);
  }

  /** Resolves when what was recorded until now is written. Throws if it can't be now; then it is tried again later. */
  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const written = this.#writing.then(() => this.#write());
    this.#writing = written.catch(() => {});
    return written;
  }

  async close(): Promise<void> {
    await throughOutage(() => this.flush()).catch(() => {});
    clearTimeout(this.#timer);
    for (const line of this.#waiting.splice(0)) this.#giveUp(line);
  }

  #later(ms: number): void {
    this.#timer ??= setTimeout(() => void this.flush().catch(() => {}), ms);
  }

  async #write(): Promise<void> {
    while (this.#waiting.length > 0) {
      const lines = this.#waiting.slice(0, AT_ONCE_MAX);
      try {
        await insertLines(this.#db, lines);
      } catch (error) {
        if (isOutage(error)) {
          this.#log.warn({ err: error, waiting: this.#waiting.length }, 'the audit log is not written yet');
          this.#later(RETRY_AFTER_MS);
          throw error;
        }
        await this.#writeEach(lines, error);
      }
      this.#waiting.splice(0, lines.length);
    }
  }

  /** One that the database does not take keeps no other from being written. */
  async #writeEach(lines: readonly NewLine[], why: unknown): Promise<void> {
    this.#log.warn({ err: why }, 'lines of the audit log are written one by one');
    for (const line of lines)
      await insertLines(this.#db, [line]).catch((error: unknown) => this.#giveUp(line, error));
  }

  #giveUp(line: NewLine, error?: unknown): void {
    this.#log.error({ err: error, audit: line }, 'a line of the audit log was not written: it is only here');
  }
}

/** What a database takes, without keys that somebody put where a name belongs. */
function clean(text: string): string {
  return text.replaceAll('\0', '').toWellFormed().replace(KEY_IN_TEXT, '$1…');
}
