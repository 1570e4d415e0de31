/**
 * Which accelerator works. /dev/kvm may exist where a guest does not run (nested virtualisation switched off
 * half-way), so a kernel is started once.
 */
import { spawn } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { CPU_MODEL, MACHINE } from './argv.ts';

const PROBE_TIMEOUT_MS = 10_000;
const OUTPUT_BYTES_MAX = 256 * 1024;

/** True when a guest kernel says its first words under KVM. The program runs as the unprivileged `uid`. */
export async function kvmWorks(program: string, kernel: string, uid: number): Promise<boolean> {
  const usable = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!usable) return false;
  const child = spawn(
    program,
    [
      ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
      ...['-machine', `${MACHINE},acpi=on,pcie=off,rtc=on`, '-accel', 'kvm', '-cpu', CPU_MODEL, '-m', '128M'],
      ...[
        '-kernel',
        kernel,
        '-append',
        'console=ttyS0 earlyprintk=ttyS0 panic=-1 reboot=t',
        '-serial',
        'stdio',
      ],
    ],
    { stdio: ['ignore', 'pipe', 'ignore'], env: {}, cwd: '/', gid: uid },
  );
  return new Promise((resolve) => {
    let output = '';
    const timer = setTimeout(() => child.kill('SIGKILL'), PROBE_TIMEOUT_MS);
    child.stdout.setEncoding('latin1').on('data', (text: string) => {
      output = (output + text).slice(-OUTPUT_BYTES_MAX);
      if (output.includes('Linux version')) child.kill('SIGKILL');
    });
    child.once('error', () => {
      clearTimeout(timer);
      resolve(false);
    });
    child.once('close', () => {
      clearTimeout(timer);
      resolve(output.includes('Linux version'));
    });
  });
}
