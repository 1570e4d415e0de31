import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { link, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { extractArchive, writeArchive } from './archive.ts';

test('a file whose other links come and go while it is read is saved whole', async () => {
  const dir = await mkdtemp(path.join(os.tmpdir(), 'tw-archive-'));
  try {
    const [from, into] = [path.join(dir, 'from'), path.join(dir, 'into')];
    await mkdir(from);
    await mkdir(into);
    const content = randomBytes(32 << 20);
    await writeFile(path.join(from, 'rootfs'), content);
    let done = false;
    const writing = writeArchive(path.join(dir, 'archive'), from, new AbortController().signal).finally(
      () => {
        done = true;
      },
    );
    while (!done) {
      await link(path.join(from, 'rootfs'), path.join(dir, 'layer'));
      await rm(path.join(dir, 'layer'));
    }
    await writing;
    await extractArchive(path.join(dir, 'archive'), into, new AbortController().signal);
    assert.ok((await readFile(path.join(into, 'rootfs'))).equals(content));
  } finally {
    await rm(dir, { recursive: true });
  }
});
