import assert from 'node:assert/strict';
import { open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { type TestContext, test } from 'node:test';
import { ThawError } from '@thaw/api';
import { acquireHead } from './acquire.ts';
import type { Build } from './build.ts';
import { pauseInto, SANDBOX, testStore } from './fixture.ts';
import { readBuild } from './read.ts';
import type { BuildStore } from './store.ts';
import { verifyBuild } from './verify.ts';

async function twoGenerations(t: TestContext): Promise<{ store: BuildStore; first: Build; second: Build }> {
  const store = await testStore(t);
  const first = await pauseInto(store, { memory: 'DDDD', disk: 'DDDD' });
  const second = await pauseInto(store, { memory: 'D...', disk: '...D' }, first);
  return { store, first: first.build, second: second.build };
}

/** As a template's is read. */
function known(store: BuildStore, { id }: Build): Promise<Build> {
  return store.known.get(id, () => readBuild(store, id));
}

async function flip(file: string, at: number): Promise<void> {
  const bytes = await readFile(file);
  bytes[at]! ^= 1;
  await writeFile(file, bytes);
}

const CASES: { name: string; message: RegExp; damage: (first: Build, second: Build) => Promise<void> }[] = [
  {
    name: 'truncated header',
    message: /memory header has \d+ bytes instead of \d+/,
    damage: (_, { files }) => truncate(files.memfileHeader, 70),
  },
  {
    name: 'changed header',
    message: /disk header does not match its checksum/,
    damage: (_, { files }) => flip(files.rootfsHeader, 90),
  },
  {
    name: 'missing vmstate',
    message: /vmstate is missing/,
    damage: (_, { files }) => rm(files.vmstate),
  },
  {
    name: 'changed vmstate',
    message: /vmstate does not match its checksum/,
    damage: (_, { files }) => flip(files.vmstate, 0),
  },
  {
    name: 'changed manifest',
    message: /manifest can not be read/,
    damage: (_, { files }) => flip(files.manifest, 30),
  },
  {
    name: 'missing manifest',
    message: /it is not on this host/,
    damage: (_, { files }) => rm(files.manifest),
  },
  {
    name: 'own diff cut',
    message: /memory has 100 bytes instead of exactly 4096/,
    damage: (_, { files }) => truncate(files.memfile, 100),
  },
  {
    name: 'diff of the parent missing',
    message: /its memory is missing/,
    damage: ({ files }) => rm(files.memfile),
  },
  {
    name: 'disk of the parent cut',
    message: /its disk has 8192 bytes instead of at least 12288/,
    damage: ({ files }) => truncate(files.rootfs, 8192),
  },
  {
    name: 'parent gone',
    message: /its memory is missing/,
    damage: ({ files }) => rm(files.dir, { recursive: true }),
  },
];

for (const { name, message, damage } of CASES) {
  test(`a restore refuses: ${name}`, async (t) => {
    const { store, first, second } = await twoGenerations(t);
    // What was read before is looked at again.
    await known(store, second);
    await damage(first, second);
    const refused = (error: unknown) => {
      assert.ok(error instanceof ThawError && error.kind === 'internal', String(error));
      assert.match(error.message, /^build [0-9a-f-]{36} is damaged: /);
      assert.match(error.message, message);
      assert.ok(!error.message.includes(store.paths.data));
      return true;
    };
    await assert.rejects(readBuild(store, second.id), refused);
    await assert.rejects(known(store, second), refused);
    store.sources.clear();
    await assert.rejects(acquireHead(store, SANDBOX), refused);
    assert.deepEqual(store.holds.ids(), []);
  });
}

test('a diff that nothing is read of is missed too, also by who has read the build', async (t) => {
  const store = await testStore(t);
  const first = await pauseInto(store, { memory: 'DDDD', disk: 'DDDD' });
  const { build } = await pauseInto(store, { memory: 'D...', disk: '....' }, first);
  await known(store, build);
  await rm(build.files.rootfs);
  await assert.rejects(known(store, build), /its disk is missing/);
});

test('what has not changed is read once', async (t) => {
  const { store, first, second } = await twoGenerations(t);
  assert.equal(await known(store, second), await known(store, second));
  assert.notEqual(await known(store, first), await known(store, second));
});

test('verify finds one changed byte of content that a restore reads lazily', async (t) => {
  for (const kind of ['memfile', 'rootfs'] as const) {
    const { store, first, second } = await twoGenerations(t);
    await flip(first.files[kind], 2 * 4096 + 5);
    await readBuild(store, second.id);
    await verifyBuild(store, second.id);
    await assert.rejects(verifyBuild(store, first.id), /chunk 0 of its (memory|disk) does not match/);
  }
});

test('a head that is no head is told, one that is missing is not found', async (t) => {
  const { store } = await twoGenerations(t);
  await assert.rejects(acquireHead(store, { kind: 'template', id: 'none' }), { kind: 'not_found' });
  await using file = await open(store.paths.head(SANDBOX), 'w');
  await file.write('{"format":1');
  await assert.rejects(acquireHead(store, SANDBOX), /head of sandbox sb1 is damaged/);
});
