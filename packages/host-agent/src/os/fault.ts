/**
 * Faults for tests: `THAW_FAULT` and the file `{run}/faults` name steps, each to be hit once. `label` makes the step
 * fail, `label:kill` ends this process there, and `label:kill=pager` ends another one, after which the step goes its
 * way: a sandbox's `keeper`, `vmm`, `pager` or `blockstore`, or the control plane (`plane`). None of it exists in normal use.
 */

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { identify, isAlive } from './process.ts';
import type { Fault } from './step.ts';

const KILL = ':kill';
const POLL_MS = 2;

const PROGRAMS = {
  keeper: 'thaw-keeper',
  vmm: 'qemu-system-x86_64',
  pager: 'thaw-pager',
  blockstore: 'thaw-blockstore',
} as const;

type Role = keyof typeof PROGRAMS;

/** Undefined when nothing asks for faults: then no step looks for them. */
export function faultsFrom(env: NodeJS.ProcessEnv, run: string): Fault | undefined {
  if (env.THAW_FAULT === undefined) return undefined;
  const once = env.THAW_FAULT.split(',').filter((entry) => entry !== '');
  const file = path.join(run, 'faults');
  return async (label) => {
    const entry = takeFrom(once, label) ?? takeFromFile(file, label);
    if (entry === undefined) return;
    const [, kill, role] = /(:kill)(?:=(\w+))?$/.exec(entry) ?? [];
    if (kill === undefined) throw new Error(`a test made ${label} fail`);
    if (role === undefined) process.kill(process.pid, 'SIGKILL');
    else await killOther(role, run);
  };
}

/** Every process of that role that belongs to this run folder; returns when they are gone. */
async function killOther(role: string, run: string): Promise<void> {
  const victims: number[] = [];
  const all = await processes();
  const keepers = all.filter(
    ({ argv: [program = '', folder = ''] }) =>
      path.basename(program) === PROGRAMS.keeper && folder.startsWith(`${run}/sandboxes/`),
  );
  if (role === 'plane') {
    const plane = ({ parent, argv }: Found) =>
      parent === process.ppid && argv.some((argument) => argument.endsWith('control-plane/src/main.ts'));
    victims.push(...all.filter(plane).map(({ pid }) => pid));
  } else if (role === 'keeper') {
    victims.push(...keepers.map(({ pid }) => pid));
  } else {
    const program = PROGRAMS[role as Role];
    const child = ({ parent, argv: [name = ''] }: Found) =>
      path.basename(name) === program && keepers.some(({ pid }) => pid === parent);
    victims.push(...all.filter(child).map(({ pid }) => pid));
  }
  for (const pid of victims) {
    const victim = await identify(pid);
    if (victim === undefined) continue;
    process.kill(pid, 'SIGKILL');
    while (await isAlive(victim)) await sleep(POLL_MS);
  }
}

interface Found {
  pid: number;
  parent: number;
  argv: string[];
}

async function processes(): Promise<Found[]> {
  const found: Found[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readFile(`/proc/${name}/stat`, 'latin1').catch(() => undefined);
    const argv = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    // As in `identify`: what follows the program's name; the second of it is the parent.
    const parent = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[1];
    if (parent !== undefined)
      found.push({ pid: Number(name), parent: Number(parent), argv: argv.split('\0') });
  }
  return found;
}

/** An entry is the label, or the label and how it is killed. */
function takeFrom(entries: string[], label: string): string | undefined {
  const at = entries.findIndex((entry) => entry === label || entry.startsWith(label + KILL));
  return at < 0 ? undefined : entries.splice(at, 1)[0];
}

function takeFromFile(file: string, label: string): string | undefined {
  let entries: string[];
  try {
    entries = readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '');
  } catch {
    return undefined;
  }
  const taken = takeFrom(entries, label);
  if (taken !== undefined) {
    writeFileSync(`${file}.new`, entries.join('\n'));
    renameSync(`${file}.new`, file);
  }
  return taken;
}
