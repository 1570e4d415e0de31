/** A command run to its end. */
import { decodeBytes, type ExecInput, type ExecResult, textOf, toBase64 } from '@thaw/api';
import { ExecStream } from './exec-stream.ts';
import { type Connection, json, sandboxPath } from './http.ts';

/** fetch gives up on an answer that does not begin within 300 s: longer commands are followed by a stream. */
const FETCH_PATIENCE_SEC = 240;

export function exec(to: Connection, sandboxId: string, command: ExecInput): Promise<ExecResult> {
  if ((command.timeout_sec ?? 0) > FETCH_PATIENCE_SEC) return followed(to, sandboxId, command);
  return json(to, 'POST', `${sandboxPath(sandboxId)}/exec`, { json: command });
}

async function followed(to: Connection, sandboxId: string, command: ExecInput): Promise<ExecResult> {
  const { stdin, stdin_encoding, ...rest } = command;
  const started = performance.now();
  const run = new ExecStream(to, sandboxId, { ...rest, stdin: stdin !== undefined });
  const feeding = stdin === undefined ? undefined : feed(run, decodeBytes(stdin, stdin_encoding));
  const chunks = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
  try {
    for await (const { stream, data } of run) chunks[stream].push(data);
    const { exitCode } = await run.result;
    await feeding;
    const all = { stdout: Buffer.concat(chunks.stdout), stderr: Buffer.concat(chunks.stderr) };
    const texts = { stdout: textOf(all.stdout), stderr: textOf(all.stderr) };
    const isText = texts.stdout !== undefined && texts.stderr !== undefined;
    return {
      sandbox_id: sandboxId,
      cmd: command.cmd,
      stdout: isText ? (texts.stdout ?? '') : toBase64(all.stdout),
      stderr: isText ? (texts.stderr ?? '') : toBase64(all.stderr),
      exit_code: exitCode,
      duration_ms: Math.round(performance.now() - started),
      encoding: isText ? 'utf-8' : 'base64',
    };
  } finally {
    run.close();
  }
}

/** A command may end without reading all of its input; how it ended says the rest. */
async function feed(run: ExecStream, input: Uint8Array): Promise<void> {
  try {
    await run.write(input);
    await run.closeStdin();
  } catch {}
}
