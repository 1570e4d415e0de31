/** The programs, users and files that sandboxes are made with. */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { exists } from '../os/exists.ts';
import { run } from '../os/run.ts';
import { type Finding, fail, type Machine, ok, warn } from './finding.ts';
import { reason } from './kernel.ts';

/** The versions that Thaw is tested with; newer ones are taken too. */
const OLDEST = { node: 24, qemu: 7.2, postgres: 15 };

/** Programs of the host agent, by the Debian package that has them. */
const TOOLS = {
  '/usr/sbin/resize2fs': 'e2fsprogs',
  '/usr/bin/setpriv': 'util-linux',
  '/usr/bin/unshare': 'util-linux',
  '/usr/bin/flock': 'util-linux',
} as const;

const INSTALLED = [
  'bin/thaw-keeper',
  'bin/thaw-pager',
  'bin/thaw-blockstore',
  'lib/libthaw_preload.so',
  'guest/vmlinux',
  'guest/initramfs.cpio',
  'guest/guest.json',
];

export async function installation({ versionDir }: Machine): Promise<Finding> {
  const missing: string[] = [];
  for (const file of INSTALLED) if (!(await exists(path.join(versionDir, file)))) missing.push(file);
  if (missing.length === 0) return ok('installation', versionDir);
  return fail('installation', `${versionDir} lacks ${missing.join(', ')}`, 'install this version again');
}

export async function node(): Promise<Finding> {
  const major = Number(process.versions.node.split('.')[0]);
  if (major >= OLDEST.node) return ok('Node.js', process.versions.node);
  return fail(
    'Node.js',
    `${process.versions.node} is too old`,
    'start Thaw by its own bin/thaw, which brings one',
  );
}

export async function qemu({ qemu: program }: Machine): Promise<Finding> {
  const fix = 'install the package qemu-system-x86';
  let text: string;
  try {
    text = (await run([program, '--version'], { timeoutMs: 5000 })).stdout;
  } catch (error) {
    return fail('QEMU', `${program} does not run: ${reason(error)}`, fix);
  }
  const version = /version (\d+\.\d+)/.exec(text)?.[1];
  if (version === undefined) return fail('QEMU', `${program} does not tell its version`, fix);
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major + minor / 10 < OLDEST.qemu)
    return warn('QEMU', `${version} is older than what Thaw is tested with (${OLDEST.qemu})`, fix);
  return ok('QEMU', version);
}

export async function postgres({ postgres: folder, databaseUrl }: Machine): Promise<Finding> {
  if (databaseUrl !== undefined) return ok('PostgreSQL', 'an external one (DATABASE_URL)');
  const versions = (await readdir(folder).catch(() => [])).filter((name) => /^\d+$/.test(name));
  const usable: number[] = [];
  for (const version of versions.map(Number))
    if (await exists(path.join(folder, String(version), 'bin/postgres'))) usable.push(version);
  const fix = 'install the package postgresql, or set DATABASE_URL';
  const newest = Math.max(...usable);
  if (usable.length === 0) return fail('PostgreSQL', `none in ${folder}`, fix);
  if (newest < OLDEST.postgres) return fail('PostgreSQL', `${newest} is too old`, fix);
  return ok('PostgreSQL', String(newest));
}

export async function tools(): Promise<Finding> {
  const packages = new Set<string>();
  for (const [file, name] of Object.entries(TOOLS)) if (!(await exists(file))) packages.add(name);
  for (const name of ['ip', 'nft'])
    await run([name, '-V'], { timeoutMs: 5000 }).catch(() =>
      packages.add(name === 'ip' ? 'iproute2' : 'nftables'),
    );
  if (packages.size === 0) return ok('programs', 'all there');
  const list = [...packages].join(' ');
  return fail('programs', `some are missing, of: ${list}`, `apt-get install ${list}`);
}

export async function users({ passwd, databaseUrl }: Machine): Promise<Finding> {
  const known = (await readFile(passwd, 'utf8')).split('\n').map((line) => line.split(':')[0]);
  const needed = databaseUrl === undefined ? ['thaw', 'thaw-db'] : ['thaw'];
  const missing = needed.filter((name) => !known.includes(name));
  if (missing.length === 0) return ok('users', needed.join(', '));
  return fail('users', `this machine has no user ${missing.join(', ')}`, 'thaw install makes them');
}
