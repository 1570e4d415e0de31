/** How rules get into the kernel: by `nft`, run for one transaction, or kept to take one after the other. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { CommandError, ENV, run } from '../os/run.ts';

/** Applies `rules` as one transaction, in the named namespace or in this process's own. */
export async function applyRules(rules: string, netns?: string): Promise<void> {
  await using cleanUp = new AsyncDisposableStack();
  // nft opens its input by path, which a socket on standard input refuses: it gets a file.
  const folder = await mkdtemp(path.join(os.tmpdir(), 'thaw-nft-'));
  cleanUp.defer(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, 'rules.nft');
  await writeFile(file, `${rules}\n`, { mode: 0o600 });
  await run(netns === undefined ? ['nft', '-f', file] : ['nsenter', `--net=${netns}`, 'nft', '-f', file]);
}

/** It keeps every line in its history: after so many another one takes over. */
const LINES_MAX = 5000;
const TIMEOUT_MS = 30_000;
const ARGV = ['nft', '-i'] as const;

/**
 * An `nft` that stays. A start costs some 15 ms, most of it the loader's and the caches'; a transaction under 1 ms.
 *
 *   absent ─► running ─► absent     after LINES_MAX transactions, when it ended or did not answer in time
 *
 * It does not say when it is done. So each transaction, one line, is followed by a word that is no command: the
 * complaint about it comes after whatever nft had to say about the transaction, by the same pipe.
 */
export class Nft implements AsyncDisposable {
  #lines = 0;
  #said = '';
  #heard: (() => void) | undefined;
  #child: ChildProcess | undefined = this.#start();

  /** One transaction: all of the statements or none. Throws `CommandError`. To be awaited before the next call. */
  async apply(statements: readonly string[]): Promise<void> {
    if (this.#lines >= LINES_MAX) await this.#end();
    this.#child ??= this.#start();
    const child = this.#child;
    const word = `end_${++this.#lines}`;
    this.#said = '';
    child.stdin!.write(`${statements.join('; ')}\n${word}\n`);
    const complaint = new RegExp(`(^|\\n)[^\\n]*Error: [^\\n]*\\n${word}\\n *\\^+\\n`);
    const timer = setTimeout(() => child.kill('SIGKILL'), TIMEOUT_MS);
    try {
      for (;;) {
        const found = complaint.exec(this.#said);
        if (found !== null) {
          const before = this.#said.slice(0, found.index);
          if (before.includes('Error:')) throw new CommandError(ARGV, { kind: 'exit', code: 1 }, before);
          return;
        }
        if (this.#child !== child)
          throw new CommandError(ARGV, { kind: 'signal', signal: child.signalCode ?? 'none' }, this.#said);
        await new Promise<void>((resolve) => {
          this.#heard = resolve;
        });
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
  }

  #start(): ChildProcess {
    this.#lines = 0;
    const child = spawn(ARGV[0], ARGV.slice(1), {
      // Its history file is not wanted.
      env: { ...ENV, HOME: '/dev/null' },
      cwd: '/',
      stdio: ['pipe', 'ignore', 'pipe'],
      // Ctrl-C on a terminal is for the host agent, which still needs it then.
      detached: true,
    });
    const gone = () => {
      if (this.#child === child) this.#child = undefined;
      this.#heard?.();
    };
    child.once('error', gone).once('exit', gone);
    child.stdin!.on('error', () => {});
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#said += text;
      this.#heard?.();
    });
    return child;
  }

  /** At the end of its input it ends by itself, also when this process is killed. */
  async #end(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    this.#lines = 0;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'close');
    child.stdin!.end();
    await ended;
  }
}
