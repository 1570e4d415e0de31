/** Runs cases with an SDK in a process of its own and tells how each ended. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { commandOf, type Mode, type Sdk } from './sdks.ts';

export interface Outcome {
  case: string;
  outcome: 'passed' | 'failed' | 'missing';
  ms: number;
  error?: string;
}

export interface Run {
  sdk: Sdk;
  mode: Mode;
  cases: readonly string[];
  /** The SDK's environment, and what the cases need to know. */
  env: Record<string, string>;
}

/** An outcome for each case in their order; what the process did not come to has failed. */
export async function* runCases({ sdk, mode, cases, env }: Run): AsyncGenerator<Outcome> {
  const [program, ...args] = commandOf(sdk, mode);
  const child = spawn(program!, [...args, ...cases], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'close');
  const said: string[] = [];
  child.stderr.setEncoding('utf8').on('data', (text: string) => said.push(text));
  const left = new Set(cases);
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      // An SDK may print, too.
      if (!line.startsWith('{"case"')) continue;
      const outcome = JSON.parse(line) as Outcome;
      left.delete(outcome.case);
      yield outcome;
    }
    const [code, signal] = await ended;
    const why = `the program ended with ${code ?? signal}\n${said.join('').slice(-4000)}`;
    for (const name of left) yield { case: name, outcome: 'failed', ms: 0, error: why };
  } finally {
    child.kill('SIGKILL');
  }
}
