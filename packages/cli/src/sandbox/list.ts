import { SandboxStatus, ThawError } from '@thaw/api';
import type { Context } from '../context.ts';
import { age, printJson, printTable } from '../print.ts';

export interface ListOptions {
  status?: string;
  template?: string;
  metadata?: Record<string, string>;
}

export async function list(context: Context, options: ListOptions): Promise<void> {
  const { status, template, metadata } = options;
  const filter = {
    ...(status !== undefined && { status: status.split(',').map(parseStatus) }),
    ...(template !== undefined && { template }),
    ...(metadata !== undefined && { metadata }),
  };
  const found = await Array.fromAsync(context.thaw().sandboxes.list(filter));
  if (context.json) return printJson(found);
  const rows = found.map((sandbox) => [
    sandbox.id,
    sandbox.status,
    sandbox.template,
    String(sandbox.vcpus),
    `${sandbox.memory_mb} MiB`,
    age(sandbox.created_at),
  ]);
  await printTable(['ID', 'STATUS', 'TEMPLATE', 'VCPUS', 'MEMORY', 'AGE'], rows);
}

function parseStatus(text: string): SandboxStatus {
  const parsed = SandboxStatus.safeParse(text);
  if (parsed.success) return parsed.data;
  throw new ThawError('invalid_request', `${text} is no status of a sandbox`);
}
