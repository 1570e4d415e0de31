/** What an instance of Thaw has on this machine, read from the kernel. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdir, readFile, readlink, realpath } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const CLAIMS = '/run/thaw.claims';
const CGROUPS = '/sys/fs/cgroup';
/** Programs that a Thaw starts: somebody's pager that looks at a file of the folder is none of them. */
const OURS = /\/bin\/(thaw-[a-z]+|node|qemu-[a-z0-9_-]+|postgres)( \(deleted\))?$/;

/** The six digits that are in the names of everything an instance creates. */
export async function instanceOf(data: string): Promise<string> {
  return createHash('sha256')
    .update(await realpath(data))
    .digest('hex')
    .slice(0, 6);
}

/** One line for each thing. */
export async function leftovers(folder: string, instance: string): Promise<string[]> {
  const named = (kind: string, names: string[]) =>
    names.filter((name) => name.includes(instance)).map((name) => `${kind} ${name}`);
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  const links = JSON.parse((await run('/usr/sbin/ip', ['-json', 'link'])).stdout) as { ifname: string }[];
  const tables = (await run('/usr/sbin/nft', ['list', 'tables'])).stdout.trim().split('\n');
  return [
    ...(await processesOf(folder)).map(({ pid, program }) => `process ${pid} (${program})`),
    ...mounts.filter((line) => line.includes(folder)).map((line) => `mount ${line.split(' ')[4]}`),
    ...named('network namespace', await names('/run/netns')),
    ...named(
      'interface',
      links.map(({ ifname }) => ifname),
    ),
    ...named('nftables', tables),
    ...named('claim', await names(CLAIMS)),
    ...named('control group', await groups()),
  ];
}

/** Of every tree, the groups at its root. */
async function groups(): Promise<string[]> {
  const trees = await names(CGROUPS);
  return (await Promise.all(['.', ...trees].map((tree) => names(path.join(CGROUPS, tree))))).flat();
}

/** Kills what a Thaw that died has left running. */
export async function endProcesses(folder: string): Promise<void> {
  for (let tries = 0; tries < 50; tries++) {
    const found = (await processesOf(folder)).filter(({ program }) => OURS.test(program));
    if (found.length === 0) return;
    for (const { pid } of found) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has just ended.
      }
    }
    await sleep(100);
  }
}

/** Processes that were told of the folder, work in it or see it mounted; not this one. */
async function processesOf(folder: string): Promise<{ pid: number; program: string }[]> {
  const found: { pid: number; program: string }[] = [];
  for (const name of await names('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue;
    const [program, ...traces] = await Promise.all([
      readlink(`/proc/${name}/exe`).catch(() => undefined),
      ...['cmdline', 'environ', 'mountinfo'].map((file) =>
        readFile(`/proc/${name}/${file}`, 'utf8').catch(() => ''),
      ),
    ]);
    // Zombies and the kernel's own have no program.
    if (program === undefined || !traces.some((text) => text?.includes(folder))) continue;
    found.push({ pid: Number(name), program });
  }
  return found;
}

async function names(folder: string): Promise<string[]> {
  return readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return [];
    throw error;
  });
}
