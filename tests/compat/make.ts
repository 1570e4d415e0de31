/**
 * Makes `fixture-1`: what the first format left on a disk and in a database. It was run once, by the version that wrote that
 * format, and is kept to tell how; later versions must read what it made, so they never run it again.
 *
 *   node tests/compat/make.ts
 */
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { sql } from 'kysely';
import { pino } from 'pino';
import { hashKey } from '../../packages/control-plane/src/auth/key.ts';
import { connectDatabase } from '../../packages/control-plane/src/db/connect.ts';
import { migrate } from '../../packages/control-plane/src/db/migrations.ts';
import { ThrowawayCluster } from '../../packages/control-plane/src/db/throwaway.ts';
import type { Build } from '../../packages/host-agent/src/build/build.ts';
import { assemble, pauseInto } from '../../packages/host-agent/src/build/fixture.ts';
import { commitHead } from '../../packages/host-agent/src/build/head.ts';
import { importImage } from '../../packages/host-agent/src/build/import.ts';
import { openBuildStore } from '../../packages/host-agent/src/build/store.ts';
import { Steps } from '../../packages/host-agent/src/os/step.ts';

const FIXTURE = path.join(import.meta.dirname, 'fixture-1');
const KEY = `e2b_${'c0ffee42'.repeat(5)}`;
const SANDBOX = 'sbcompat00000000000001';
const TEMPLATE = 'tplcompat00000000000001';

const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

if (existsSync(FIXTURE)) throw new Error(`${FIXTURE} exists: it is not made twice`);
const scratch = await mkdtemp(path.join(tmpdir(), 'thaw-compat-'));
try {
  const made = path.join(scratch, 'made');
  const expected = await makeBuilds(path.join(made, 'data'));
  await writeFile(
    path.join(made, 'expected.json'),
    `${JSON.stringify({ key: KEY, ...expected }, null, 2)}\n`,
  );
  await writeFile(path.join(made, 'database.sql'), await dumpDatabase(expected));
  execFileSync('cp', ['-r', made, FIXTURE]);
} finally {
  await rm(scratch, { recursive: true, force: true });
}

type Expected = Awaited<ReturnType<typeof makeBuilds>>;

/** A base image, a sandbox of two generations over it, and a template that stands on the first of them. */
async function makeBuilds(data: string) {
  await mkdir(data, { recursive: true });
  const store = await openBuildStore(data);
  const steps = new Steps();
  const image = path.join(scratch, 'image');
  const content = Buffer.concat([randomBytes(8192), Buffer.alloc(8192), randomBytes(16_384)]);
  await writeFile(image, content);
  const base = await importImage(store, steps, 'import', {
    image,
    template: 'minimal',
    facts: {
      name: 'minimal',
      type: 'base',
      memoryMb: 0,
      counter: 0,
      createdAt: 1_763_900_000,
      image: 'image-1',
    },
  });
  const owner = { kind: 'sandbox', id: SANDBOX } as const;
  const first = await pauseInto(store, { memory: 'DD0DDD0D', disk: 'DD..0D..' }, undefined, { owner });
  await commitHead(
    store,
    steps,
    'snapshot',
    { kind: 'template', id: TEMPLATE },
    {
      build: first.build.id,
      facts: { name: 'ready', type: 'snapshot', memoryMb: 128, counter: 7, createdAt: 1_763_900_100 },
    },
  );
  const second = await pauseInto(store, { memory: '.D.0DD..', disk: 'D...0..D' }, first, { owner });
  const record = {
    id: SANDBOX,
    template: 'minimal',
    vcpus: 1,
    memoryMb: 128,
    diskMb: 512,
    timeoutSec: 0,
    env: { GREETING: 'hello' },
    accessToken: '0123456789abcdef'.repeat(3),
    machineId: '0123456789abcdef'.repeat(2),
    counter: 1_763_900_200_000,
    createdAt: 1_763_900_050,
    lastActiveAt: 1_763_900_200,
    started: false,
  };
  await writeFile(path.join(data, 'sandboxes', SANDBOX, 'sandbox.json'), JSON.stringify(record));
  const sums = async (build: Build) => ({
    id: build.id,
    memory: build.memory === null ? null : digest(await assemble(build.memory)),
    disk: digest(await assemble(build.disk)),
  });
  return {
    builds: [await sums(base), await sums(first.build), await sums(second.build)],
    sandbox: SANDBOX,
    template: TEMPLATE,
  };
}

/** As plain SQL. */
async function dumpDatabase({ builds, sandbox, template }: Expected): Promise<string> {
  await using cluster = await ThrowawayCluster.start();
  const url = await cluster.database();
  const db = connectDatabase(url, pino({ level: 'silent' }));
  await migrate(db, '0001_first');
  const [base, first, second] = builds.map(({ id }) => id);
  const at = (second: number) => `2025-11-23 12:00:${String(second).padStart(2, '0')}.123+00`;
  const statements = [
    sql`insert into api_keys (id, team_id, hash, prefix, created_at)
      values (${`key_${hashKey(KEY).slice(0, 16)}`}, 'default', ${hashKey(KEY)}, ${KEY.slice(0, 8)}, ${at(0)})`,
    sql`insert into builds (id, parent_id, generation, stored_bytes, created_at) values
      (${base}, null, 0, 24576, ${at(1)}), (${first}, ${base}, 0, 65536, ${at(2)}),
      (${second}, ${first}, 1, 5000000000, ${at(3)})`,
    sql`insert into templates (id, team_id, name, type, vcpus, memory_mb, disk_mb, build_id, created_at) values
      ('minimal', null, 'minimal', 'base', null, null, 512, ${base}, ${at(4)}),
      (${template}, 'default', 'ready', 'snapshot', 1, 128, 512, ${first}, ${at(5)})`,
    sql`insert into tags (template_id, tag, build_id) values (${template}, 'v1', ${first})`,
    sql`insert into sandboxes (id, team_id, template_id, template, status, revision, vcpus, memory_mb, disk_mb,
        metadata, isolation, vmm, backend, build_id, created_at, started_at, last_active_at, last_updated) values
      (${sandbox}, 'default', 'minimal', 'minimal', 'paused', 4, 1, 128, 512, '{"app":"old ü"}', 'emulated', 'qemu',
        'uffd', ${second}, ${at(6)}, ${at(7)}, ${at(8)}, ${at(9)})`,
    ...(['running', 'stopped', 'error', 'pausing', 'pending'] as const).map(
      (
        status,
        index,
      ) => sql`insert into sandboxes (id, team_id, template_id, template, status, vcpus, memory_mb,
          disk_mb, error_reason, created_at, started_at) values
        (${`sbcompat1000000000000${index}`}, 'default', 'minimal', 'minimal', ${status}, 2, 512, 4096,
          ${status === 'error' ? 'the VM exited' : null}, ${at(10 + index)}, ${at(20 + index)})`,
    ),
  ];
  for (const statement of statements) await statement.execute(db);
  await db.destroy();
  const [, database = '', host = ''] = url.match(/@\/(\w+)\?host=(.*)$/) ?? [];
  const version = readdirSync('/usr/lib/postgresql').toSorted().at(-1)!;
  const flags = ['--inserts', '--no-owner', '--no-privileges', '-h', host, '-U', 'thaw', database];
  const text = execFileSync(`/usr/lib/postgresql/${version}/bin/pg_dump`, flags, { encoding: 'utf8' });
  // What only psql understands.
  return text.replace(/^\\.*\n/gm, '');
}
