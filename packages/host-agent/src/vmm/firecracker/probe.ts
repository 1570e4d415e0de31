/** Whether Firecracker runs a guest here: /dev/kvm may exist where none does, so a kernel is started once. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { FirecrackerApi, put } from '../firecracker-api/api.ts';
import { FIRST_WORDS } from '../probe-cache.ts';

const PROBE_TIMEOUT_MS = 5000;
const OUTPUT_BYTES_MAX = 256 * 1024;

/** True when a guest kernel says its first words. */
export async function firecrackerWorks(program: string, kernel: string): Promise<boolean> {
  await using undo = new AsyncDisposableStack();
  const dir = await mkdtemp(path.join(os.tmpdir(), 'thaw-probe-'));
  undo.defer(() => rm(dir, { recursive: true, force: true }));
  const socket = path.join(dir, 'api.sock');
  const child = spawn(program, ['--api-sock', socket, '--id', 'probe'], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: {},
    cwd: dir,
  });
  const closed = once(child, 'close').catch(() => {});
  undo.defer(async () => {
    child.kill('SIGKILL');
    await closed;
  });
  const spoke = new Promise<boolean>((resolve) => {
    let output = '';
    child.stdout.setEncoding('latin1').on('data', (text: string) => {
      output = (output + text).slice(-OUTPUT_BYTES_MAX);
      if (output.includes(FIRST_WORDS)) resolve(true);
    });
    void closed.then(() => resolve(false));
    setTimeout(() => resolve(false), PROBE_TIMEOUT_MS).unref();
  });
  try {
    const ended = new AbortController();
    void closed.then(() => ended.abort());
    const api = await FirecrackerApi.open(socket, PROBE_TIMEOUT_MS, ended.signal);
    undo.defer(() => api.close());
    await api.calls([
      put('/machine-config', { vcpu_count: 1, mem_size_mib: 128 }),
      put('/boot-source', {
        kernel_image_path: kernel,
        boot_args: 'console=ttyS0 earlyprintk=ttyS0 panic=-1 reboot=k pci=off',
      }),
      put('/actions', { action_type: 'InstanceStart' }),
    ]);
    return await spoke;
  } catch {
    return false;
  }
}
