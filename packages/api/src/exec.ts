/** Commands in a sandbox: one answer at the end, or a stream of messages over a WebSocket (spec/exec-stream.md). */
import { z } from 'zod';
import { Encoding } from './bytes.ts';
import { Env } from './sandbox.ts';
import { text } from './text.ts';

export const GuestUser = text(64).min(1);
export const GuestPath = text(4096).min(1);

/** Of a terminal, in characters. */
export const TerminalSize = z.strictObject({
  cols: z.int().min(1).max(65_535),
  rows: z.int().min(1).max(65_535),
});
export type TerminalSize = z.infer<typeof TerminalSize>;

const command = {
  cmd: text(131_072).min(1),
  args: z.array(text(131_072)).max(4096).default([]),
  cwd: GuestPath.optional(),
  env: Env.optional(),
  user: GuestUser.optional(),
};

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** What cannot be decoded is refused: it would arrive as other bytes than were meant. */
const decodable = (data: string, encoding: Encoding) =>
  encoding === 'base64' ? BASE64.test(data) : data.isWellFormed();

export const Exec = z
  .strictObject({
    ...command,
    timeout_sec: z.int().min(0).max(86_400).default(0).describe('0 or absent: 30 s.'),
    stdin: z.string().optional(),
    stdin_encoding: Encoding.default('utf-8'),
  })
  .refine(({ stdin = '', stdin_encoding }) => decodable(stdin, stdin_encoding), {
    path: ['stdin'],
    message: 'is not what stdin_encoding says',
  });
export type Exec = z.output<typeof Exec>;
export type ExecInput = z.input<typeof Exec>;

export const ExecResult = z.object({
  sandbox_id: z.string(),
  cmd: z.string(),
  stdout: z.string(),
  stderr: z.string(),
  exit_code: z.number(),
  duration_ms: z.number(),
  encoding: Encoding.describe('Of stdout and stderr: base64 as soon as one of them is not UTF-8.'),
});
export type ExecResult = z.infer<typeof ExecResult>;

export const StreamAuth = z.strictObject({ type: z.literal('auth'), key: z.string().max(256) });

export const StreamStart = z.strictObject({
  type: z.literal('start'),
  ...command,
  timeout_sec: z.int().min(0).max(2_147_483).default(0).describe('0: no limit.'),
  stdin: z
    .boolean()
    .default(false)
    .describe('Keeps standard input open for `stdin` messages; otherwise it is empty.'),
  pty: TerminalSize.optional().describe(
    'Runs on a terminal of this size: all output is `stdout`, standard input is open.',
  ),
});
export type StreamStart = z.output<typeof StreamStart>;
export type StreamStartInput = z.input<typeof StreamStart>;

export const StreamInput = z.discriminatedUnion('type', [
  z
    .strictObject({ type: z.literal('stdin'), data: z.string(), encoding: Encoding.default('utf-8') })
    .refine(({ data, encoding }) => decodable(data, encoding), {
      path: ['data'],
      message: 'is not what encoding says',
    }),
  z.strictObject({ type: z.literal('stdin_close') }),
  z.strictObject({ type: z.literal('resize'), ...TerminalSize.shape }),
  z.strictObject({ type: z.literal('stop') }),
]);
export type StreamInput = z.output<typeof StreamInput>;

export const StreamOutput = z.discriminatedUnion('type', [
  z.object({ type: z.literal('start'), pid: z.number() }),
  z.object({ type: z.enum(['stdout', 'stderr']), data: z.string(), encoding: Encoding }),
  z.object({ type: z.literal('exit'), exit_code: z.number(), error: z.string().optional() }),
  z.object({ type: z.literal('error'), code: z.string(), data: z.string() }),
]);
export type StreamOutput = z.infer<typeof StreamOutput>;
