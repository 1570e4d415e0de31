/**
 * What a sandbox's console said: its boot and its serial port. While it runs its keeper has it; what a run ended with is
 * kept in the sandbox's folder, for its owner alone, and goes with the sandbox.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import type { Host } from '../host.ts';
import type { Vm } from '../vmm/vmm.ts';
import { SandboxPaths } from './paths.ts';

const KEPT_BYTES = 256 * 1024;

/** Of this run and of those before, the last 256 KiB. Throws `not_found`. */
export async function readLogs(host: Host, id: string): Promise<string> {
  const sandbox = host.registry.get(id);
  const paths = new SandboxPaths(host.config, id);
  const { state } = sandbox;
  // Read first: a run that ends meanwhile is told twice rather than not at all.
  const live = 'machine' in state ? await state.machine.vm.console().catch(() => '') : '';
  const kept = await readFile(paths.console, 'utf8').catch(() => '');
  return last(kept + live);
}

/** To be called before a VM's keeper ends. It never throws: a console is no reason to keep a VM. */
export async function keepConsole(paths: SandboxPaths, vm: Pick<Vm, 'console'>): Promise<void> {
  try {
    const said = await vm.console();
    const before = await readFile(paths.console, 'utf8').catch(() => '');
    const mark = `${said === '' || said.endsWith('\n') ? '' : '\n'}--- ended ${new Date().toISOString()}\n`;
    // Without making the folder: that of a sandbox which is no more stays away.
    await writeFile(`${paths.console}.new`, last(before + said + mark), { mode: 0o600 });
    await rename(`${paths.console}.new`, paths.console);
  } catch {}
}

function last(text: string): string {
  const bytes = Buffer.from(text);
  return bytes.length <= KEPT_BYTES ? text : bytes.subarray(bytes.length - KEPT_BYTES).toString('utf8');
}
