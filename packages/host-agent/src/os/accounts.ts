/** Users and groups of this host, read from the files: Thaw's own are local. */
import { readFile } from 'node:fs/promises';

async function idIn(file: string, name: string): Promise<number> {
  const line = (await readFile(file, 'utf8')).split('\n').find((entry) => entry.startsWith(`${name}:`));
  const id = Number(line?.split(':')[2]);
  if (line === undefined || !Number.isInteger(id))
    throw new Error(`${file} has no ${name}: install Thaw first`);
  return id;
}

export function userId(name: string): Promise<number> {
  return idIn('/etc/passwd', name);
}

export function groupId(name: string): Promise<number> {
  return idIn('/etc/group', name);
}
