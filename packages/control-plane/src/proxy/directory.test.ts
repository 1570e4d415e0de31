import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, it } from 'node:test';
import { sql } from 'kysely';
import { pino } from 'pino';
import { connectDatabase } from '../db/connect.ts';
import { moveSandbox } from '../sandbox/table.ts';
import { TestPlane, until } from '../testing.ts';
import { Directory } from './directory.ts';
import { ask, newAddress, type Service, sandboxAt, service } from './fixture.ts';

describe('the table of routes', () => {
  let plane: TestPlane;
  let directory: Directory;
  const left: string[] = [];
  const log = pino({ level: 'silent' });
  const undo = new AsyncDisposableStack();
  before(async () => {
    plane = undo.use(await TestPlane.start({ server: true }));
    const { databaseUrl } = plane.config;
    const db = connectDatabase(databaseUrl, log);
    undo.defer(() => db.destroy());
    // Another control plane's, which hears of what this one does from the database alone.
    directory = undo.use(await Directory.open({ db, log, onLeft: (id) => void left.push(id) }, databaseUrl));
  });
  after(() => undo.disposeAsync());

  it('hears of what others do', async () => {
    const id = await plane.createSandbox();
    await until(() => directory.find(id)?.status === 'running');
    await plane.ask('POST', `/v1/sandboxes/${id}/pause`);
    await until(() => directory.find(id)?.status === 'paused');
    assert.ok(left.includes(id));
    await plane.ask('PATCH', `/v1/sandboxes/${id}`, { auto_resume: false });
    await until(() => directory.find(id)?.autoResume === false);
    await plane.ask('DELETE', `/v1/sandboxes/${id}`);
    await until(() => directory.find(id)?.status === 'stopped');
  });

  it('looks before it says no, and not too often', async () => {
    assert.equal(await directory.look('sb00000000000000000000'), undefined);
    const id = await plane.createSandbox();
    assert.equal((await directory.look(id))?.status, 'running');
    // A look a moment ago is no answer now, whether or not word of the change has come.
    const turns = ['paused', 'running'] as const;
    for (let turn = 0; turn < 40; turn++) {
      const [next, last] = turn % 2 === 0 ? turns : ([...turns].reverse() as ['running', 'paused']);
      await plane.withDatabase(async (db) => {
        await moveSandbox(db, id, [last], { status: next });
        assert.equal((await directory.look(id))?.status, next);
      });
    }
  });

  it('reads everything again when it did not hear for a while', async () => {
    const id = await plane.createSandbox();
    await until(() => directory.find(id)?.status === 'running');
    await plane.withDatabase(async (db) => {
      await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'thaw-proxy'`.execute(
        db,
      );
      await moveSandbox(db, id, ['running'], { host_ip: '127.0.0.9' });
    });
    await until(() => directory.find(id)?.hostIp === '127.0.0.9');
    await plane.withDatabase((db) => moveSandbox(db, id, ['running'], { host_ip: '127.0.0.8' }));
    await until(() => directory.find(id)?.hostIp === '127.0.0.8');
  });

  it('knows a row that was removed', async () => {
    const id = await plane.createSandbox();
    await until(() => directory.find(id)?.status === 'running');
    await plane.withDatabase((db) => db.deleteFrom('sandboxes').where('id', '=', id).execute());
    await until(() => directory.find(id)?.status === 'stopped');
  });
});

describe('the proxy without its database', () => {
  let plane: TestPlane;
  let app: Service;
  before(async () => {
    plane = await TestPlane.start({ server: true, proxy: true });
    app = await service(
      newAddress(),
      http.createServer((_request, response) => response.end('here')),
    );
  });
  after(async () => {
    await app?.[Symbol.asyncDispose]();
    await plane?.[Symbol.asyncDispose]();
  });

  it('goes on to sandboxes that run, and says that it does not know of others', async () => {
    const proxy = plane.running.proxy.url!;
    const id = await sandboxAt(plane, app.host);
    const at = { proxy, host: `${app.port}-${id}.x.y` };
    assert.equal((await ask(at)).body, 'here');
    await plane.cluster.crash();
    assert.equal((await ask(at)).body, 'here');
    const other = await ask({ proxy, host: `${app.port}-sb00000000000000000000.x.y` });
    assert.equal(other.status, 503);
    await plane.cluster.restart();
    await until(async () => (await ask({ proxy, host: `1-sb00000000000000000001.x.y` })).status === 502);
  });
});
