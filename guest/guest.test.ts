// What the recipe promises about its files, checked on the built guest with e2fsprogs.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { encodeCpio } from './cpio.ts';
import { builtGuest, guestDir, notBuilt } from './fixture.ts';
import { describe, lockFile, readLock, replacements } from './lock.ts';
import { imageNames, images, kernelPackage, suite } from './recipe.ts';
import { run } from './run.ts';
import { sha256File } from './step.ts';

test('the lock has every package of the recipe, sorted, and no address', async () => {
  const lock = await readLock();
  assert.equal(lock.suite, suite);
  assert.match(
    Object.keys(lock.kernel).join(),
    new RegExp(`^linux-image-.*-${kernelPackage.split('-').at(-2)}-`),
  );
  for (const name of imageNames) {
    const packages = Object.keys(lock.images[name]);
    assert.deepEqual(packages, [...packages].sort());
    for (const wanted of images[name].packages) assert.ok(packages.includes(wanted), `${name}: ${wanted}`);
  }
  assert.doesNotMatch(await readFile(lockFile, 'utf8'), /:\/\//);
});

test('a version that the archive lost is named with what replaced it', () => {
  const found = replacements({ a: '1', b: '1', c: '1' }, { a: '1', b: '2', d: '1' });
  assert.deepEqual(found.map(describe), [
    'b 1 is not in the archive, 2 used instead',
    'c 1 is no longer needed',
    'd 1 came in, it is not in the lock',
  ]);
});

test('the archive of the initramfs is as the kernel reads it', () => {
  const content = Buffer.from('hello');
  const archive = encodeCpio([
    { path: 'dev', kind: 'dir', mode: 0o755 },
    { path: 'dev/console', kind: 'char', mode: 0o600, major: 5, minor: 1 },
    { path: 'init', kind: 'file', mode: 0o755, content },
  ]);
  const entries = decodeCpio(archive);
  assert.deepEqual(
    entries.map(({ name, mode }) => [name, mode.toString(8)]),
    [
      ['dev', '40755'],
      ['dev/console', '20600'],
      ['init', '100755'],
      ['TRAILER!!!', '0'],
    ],
  );
  assert.deepEqual(entries[2]!.content, content);
  assert.equal(archive.length % 512, 0);
});

test('guest.json tells what lies beside it', { skip: notBuilt }, async () => {
  const guest = await builtGuest();
  for (const part of [guest.kernel, guest.initramfs]) {
    assert.equal(await sha256File(join(guestDir, part.file)), part.sha256, part.file);
  }
  for (const name of imageNames) {
    const image = guest.images[name]!;
    assert.equal((await stat(join(guestDir, image.file))).size, image.size_bytes);
    assert.equal(await sha256File(join(guestDir, image.file)), image.id, image.file);
  }
});

for (const name of imageNames) {
  test(`${name} is a clean file system with users, names and no documentation`, {
    skip: notBuilt,
  }, async () => {
    const image = join(guestDir, `${name}.ext4`);
    await run(['e2fsck', '-fn', image]);
    const passwd = await readFrom(image, '/etc/passwd');
    assert.match(passwd, /^root:x:0:0:/m);
    assert.match(passwd, /^user:x:1000:1000:.*:\/home\/user:\/bin\/bash$/m);
    assert.match(await readFrom(image, '/etc/group'), /^user:x:1000:/m);
    assert.equal(await readFrom(image, '/etc/resolv.conf'), 'nameserver 8.8.8.8\n');
    assert.equal(await readFrom(image, '/etc/machine-id'), '');
    assert.match(
      await readFrom(image, '/etc/apt/sources.list'),
      /^deb http:\/\/deb\.debian\.org\/debian bookworm main$/m,
    );
    assert.doesNotMatch(await list(image, '/etc/apt/sources.list.d'), /\.sources|\.list/);
    assert.equal(await list(image, '/usr/share/man/man1'), '');
    assert.match(await list(image, '/usr/bin'), / bash\n/);
  });
}

test('base has the languages and tools, and sudo without a password', { skip: notBuilt }, async () => {
  const image = join(guestDir, 'base.ext4');
  const programs = await list(image, '/usr/bin');
  for (const program of ['python', 'python3', 'node', 'git', 'curl', 'sudo', 'tput', 'ss', 'pgrep', 'pip']) {
    assert.match(programs, new RegExp(` ${program}\n`));
  }
  assert.match(await list(image, '/usr/lib/git-core'), / git-daemon\n/);
  assert.match(await list(image, '/usr/lib/terminfo/x'), / xterm-256color\n/);
  assert.match(await readFrom(image, '/etc/ssl/certs/ca-certificates.crt'), /^-----BEGIN CERTIFICATE-----/);
  assert.match(await readFrom(image, '/etc/sudoers.d/user'), /^user ALL=\(ALL:ALL\) NOPASSWD: ALL$/m);
});

test('a disk grows to the default and to the largest size with few writes', { skip: notBuilt }, async () => {
  await using undo = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'thaw-guest-'));
  undo.defer(() => rm(dir, { recursive: true, force: true }));
  for (const sizeMb of [4096, 65536]) {
    const disk = join(dir, `${sizeMb}.ext4`);
    await run(['cp', '--sparse=always', join(guestDir, 'minimal.ext4'), disk]);
    const before = (await stat(disk)).blocks;
    await truncate(disk, sizeMb * 1024 * 1024);
    await run(['resize2fs', disk]);
    await run(['e2fsck', '-fn', disk]);
    const grownKib = ((await stat(disk)).blocks - before) / 2;
    assert.ok(grownKib < 4096, `${grownKib} KiB written for ${sizeMb} MiB`);
  }
});

const readFrom = (image: string, path: string) => run(['debugfs', '-R', `cat ${path}`, image]);
const list = (image: string, path: string) =>
  run(['debugfs', '-R', `ls -p ${path}`, image]).then((rows) =>
    rows
      .split('\n')
      .map((row) => row.split('/')[5] ?? '')
      .filter((name) => !/^\.{0,2}$/.test(name))
      .map((name) => ` ${name}\n`)
      .join(''),
  );

/** The reading side, as small as the format allows. */
function decodeCpio(archive: Buffer): { name: string; mode: number; content: Buffer }[] {
  const entries = [];
  let at = 0;
  for (;;) {
    assert.equal(archive.toString('latin1', at, at + 6), '070701');
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const [mode, size, nameSize] = [field(1), field(6), field(11)];
    const name = archive.toString('latin1', at + 110, at + 110 + nameSize - 1);
    const start = Math.ceil((at + 110 + nameSize) / 4) * 4;
    entries.push({ name, mode, content: archive.subarray(start, start + size) });
    if (name === 'TRAILER!!!') return entries;
    at = Math.ceil((start + size) / 4) * 4;
  }
}
