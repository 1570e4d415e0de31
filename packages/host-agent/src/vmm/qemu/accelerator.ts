/**
 * Which accelerator works. /dev/kvm may exist where a guest does not run (nested virtualisation switched off
 * half-way), so a kernel is started once.
 */
import { spawn } from 'node:child_process';
import { access, constants, readFile, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { CPU_MODEL, MACHINE } from './argv.ts';

/** The first words take a tenth of a second where they come at all. */
const PROBE_TIMEOUT_MS = 3000;
const OUTPUT_BYTES_MAX = 256 * 1024;

const cacheSchema = z.object({ bootId: z.string(), program: z.string(), works: z.boolean() });

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
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const known = cache === undefined ? undefined : await readCache(cache);
  if (known?.bootId === bootId && known.program === program) return known.works;
  const works = await starts(program, kernel);
  if (cache !== undefined) await writeFile(cache, JSON.stringify({ bootId, program, works }));
  return works;
}

async function readCache(file: string): Promise<z.infer<typeof cacheSchema> | undefined> {
  try {
    return cacheSchema.parse(JSON.parse(await readFile(file, 'utf8')));
  } catch {
    // Missing or damaged: the probe is simply run again.
    return undefined;
  }
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
      if (output.includes('Linux version')) child.kill('SIGKILL');
    });
    const done = () => {
      clearTimeout(timer);
      resolve(output.includes('Linux version'));
    };
    child.once('error', done);
    child.once('close', done);
  });
}
