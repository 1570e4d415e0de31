// Runs one program of the host; its output belongs to the error when it fails.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export interface RunOptions {
  env?: Record<string, string>;
  cwd?: string;
  /** Written to standard input. */
  input?: string;
  /** Called with each line of standard error. */
  onLine?: (line: string) => void;
}

const outputLinesKept = 30;

/** Standard output. Throws with the last lines it wrote when the exit status is not 0. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const [program, ...args] = argv as [string, ...string[]];
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...process.env, LC_ALL: 'C', ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  // A program that ends without reading its input says why by its exit status.
  child.stdin.on('error', () => {});
  child.stdin.end(options.input ?? '');
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  const lines: string[] = [];
  const reading = (async () => {
    for await (const line of createInterface({ input: child.stderr })) {
      lines.push(line);
      if (lines.length > outputLinesKept) lines.shift();
      options.onLine?.(line);
    }
  })();
  const status = await ended.catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === 'ENOENT'
      ? new Error(`${program} is not installed (needed Debian packages: guest/packages.txt)`)
      : cause;
  });
  await reading;
  const output = Buffer.concat(chunks).toString('utf8');
  if (status !== 0) {
    const said = [output.trimEnd(), ...lines].join('\n').split('\n').slice(-outputLinesKept);
    throw new Error(`${program} failed (${status ?? 'killed'}):\n${said.join('\n')}`);
  }
  return output;
}
