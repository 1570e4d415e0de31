/**
 * Runs inside a test's network namespace (Node cannot enter one itself) and talks to its guest: one JSON request
 * a line on standard input, one answer a line on standard output.
 */
import { createInterface } from 'node:readline';
import * as control from '../../../packages/host-agent/src/guest/control.ts';
import { collect } from '../../../packages/host-agent/src/guest/exec.ts';
import { Guest } from '../../../packages/host-agent/src/guest/guest.ts';

const HOST = '169.254.0.21';
const TOKEN = 'test-token';

export interface Call {
  id: number;
  op: 'health' | 'init' | 'prepare' | 'thaw' | 'exec';
  /** Attempts go on until then. */
  timeoutMs: number;
  script?: string;
  counter?: number;
}

const guest = new Guest(HOST, TOKEN);

async function health(timeoutMs: number): Promise<number> {
  const started = performance.now();
  for (;;) {
    const signal = AbortSignal.timeout(200);
    const answer = await fetch(`http://${HOST}:49983/health`, { signal }).catch(() => undefined);
    if (answer?.ok) return performance.now() - started;
    if (performance.now() - started > timeoutMs) throw new Error('the guest does not answer');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

function identity(counter: number): control.Identity {
  return {
    counter,
    sandboxId: 'sbtest',
    templateId: 'minimal',
    accessToken: TOKEN,
    envVars: {},
    hostname: 'test',
    machineId: 'ab'.repeat(16),
    entropy: Buffer.alloc(64, counter).toString('base64'),
    defaultUser: 'root',
    defaultWorkdir: '/root',
  };
}

async function serve(call: Call): Promise<unknown> {
  switch (call.op) {
    case 'health':
      return health(call.timeoutMs);
    case 'init':
      return control.init(HOST, identity(call.counter ?? 1), call.timeoutMs);
    case 'prepare':
      return control.prepare(HOST, call.timeoutMs);
    case 'thaw':
      return control.thaw(HOST, call.timeoutMs);
    case 'exec': {
      const args = ['-c', call.script ?? ''];
      const command = { cmd: '/bin/sh', args, cwd: '/', env: {}, user: 'root', timeoutMs: 0, stdin: false };
      const { stdout, stderr, exitCode } = await collect(
        guest,
        command,
        new Uint8Array(),
        AbortSignal.timeout(call.timeoutMs),
      );
      return { stdout: Buffer.from(stdout).toString(), stderr: Buffer.from(stderr).toString(), exitCode };
    }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line) as Call;
  serve(call).then(
    (result) => console.log(JSON.stringify({ id: call.id, result })),
    (error: Error) => console.log(JSON.stringify({ id: call.id, error: `${error.message}: ${error.cause}` })),
  );
}
process.exit(0);
