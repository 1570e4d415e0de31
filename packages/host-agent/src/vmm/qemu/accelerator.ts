/**
 * Which accelerator works. /dev/kvm may exist where a guest does not run (nested virtualisation switched off
 * half-way), so a kernel is started once.
 */
import { spawn } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { FIRST_WORDS, remembered } from '../probe-cache.ts';
import { CPU_MODEL, MACHINE } from './argv.ts';

/** The first words take a tenth of a second where they come at all. */
const PROBE_TIMEOUT_MS = 3000;
const OUTPUT_BYTES_MAX = 256 * 1024;

/** True when a guest kernel says its first words under KVM. `cache` keeps the answer until the host boots again. */
export async function kvmWorks(
  program: string,
  { kernel, cache }: { kernel: string; cache?: string },
): Promise<boolean> {
  const usable = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!usable) return false;
  return remembered(cache, program, () => starts(program, kernel));
}

function starts(program: string, kernel: string): Promise<boolean> {
  const child = spawn(
    program,
    [
      ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
      ...['-machine', `${MACHINE},acpi=on,pcie=off,rtc=on`, '-accel', 'kvm', '-cpu', CPU_MODEL, '-m', '128M'],
      ...['-kernel', kernel, '-append', 'console=ttyS0 earlyprintk=ttyS0 panic=-1 reboot=t'],
      ...['-serial', 'stdio', '-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny'],
    ],
    { stdio: ['ignore', 'pipe', 'ignore'], env: {}, cwd: '/' },
  );
  return new Promise((resolve) => {
    let output = '';
    const timer = setTimeout(() => child.kill('SIGKILL'), PROBE_TIMEOUT_MS);
    child.stdout.setEncoding('latin1').on('data', (text: string) => {
      output = (output + text).slice(-OUTPUT_BYTES_MAX);
      if (output.includes(FIRST_WORDS)) child.kill('SIGKILL');
    });
    const done = () => {
      clearTimeout(timer);
      resolve(output.includes(FIRST_WORDS));
    };
    child.once('error', done);
    child.once('close', done);
  });
}
