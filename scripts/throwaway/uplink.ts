/**
 * A way out for guests that leads nowhere: a cable into a namespace where nobody answers. Both are named for the
 * process that made them, so that a later one can remove what a killed one left.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';

const PREFIX = 'thawd-';
const run = promisify(execFile);
let made = 0;

/** Returns the interface's name. */
export async function addUplink(): Promise<string> {
  await removeOld();
  const name = `${PREFIX}${process.pid}-${++made}`;
  await using undo = new AsyncDisposableStack();
  await ip('netns', 'add', name);
  undo.defer(() => ip('netns', 'del', name));
  await ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
  await ip('-netns', name, 'link', 'set', 'eth0', 'up');
  await ip('link', 'set', name, 'up');
  undo.move();
  return name;
}

/** Removes the namespace, and with it both ends of the cable. */
export async function removeUplink(name: string): Promise<void> {
  // Its end here goes first: the kernel removes a namespace a little later than it says.
  await ip('link', 'del', name);
  await ip('netns', 'del', name);
}

async function removeOld(): Promise<void> {
  for (const name of await readdir('/run/netns').catch(() => [])) {
    const pid = /^thawd-(\d+)(-\d+)?$/.exec(name)?.[1];
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue;
    await ip('link', 'del', name).catch(() => {});
    await ip('netns', 'del', name).catch(() => {});
  }
}

async function ip(...args: string[]): Promise<void> {
  await run('/usr/sbin/ip', args);
}
