import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import { syncTemplates } from '../../template/sync.ts';
import { type Answer, TestPlane, until } from '../../testing.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

describe('templates of the E2B API', () => {
  let test: TestPlane;
  let id: string;
  let templateID: string;
  before(async () => {
    test = await TestPlane.start();
    id = await test.createSandbox({ vcpus: 2, memory_mb: 256, disk_mb: 2048 });
    await test.ask('POST', `/sandboxes/${id}/snapshots`, { name: 'app' });
    templateID = (await test.ask('GET', '/templates/aliases/app')).body.templateID;
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const tagsOf = async (name: string): Promise<Record<string, string>> => {
    const { status, body } = await test.ask('GET', `/templates/${encodeURIComponent(name)}/tags`);
    assert.equal(status, 200, JSON.stringify(body));
    for (const tag of body) {
      assert.deepEqual(Object.keys(tag).sort(), ['buildID', 'createdAt', 'tag']);
      assert.ok(!Number.isNaN(Date.parse(tag.createdAt)));
    }
    return Object.fromEntries(body.map(({ tag, buildID }: Record<string, string>) => [tag, buildID]));
  };
  const assign = (target: string, ...tags: string[]): Promise<Answer> =>
    test.ask('POST', '/templates/tags', { target, tags });
  const unassign = (name: string, ...tags: string[]): Promise<Answer> =>
    test.ask('DELETE', '/templates/tags', { name, tags });

  it('exist or not by alias, id and full name', async () => {
    await until(async () => (await test.ask('GET', '/templates/aliases/base')).status === 200);
    assert.deepEqual((await test.ask('GET', '/templates/aliases/base')).body, {
      templateID: 'base',
      public: true,
    });
    for (const alias of ['app', 'APP', 'default%2Fapp', 'app%3Adefault', templateID])
      assert.deepEqual((await test.ask('GET', `/templates/aliases/${alias}`)).body, {
        templateID,
        public: false,
      });
    for (const alias of ['nosuch', 'app%3Av9', 'else%2Fapp', 'default%2Fbase']) {
      const { status, body } = await test.ask('GET', `/templates/aliases/${alias}`);
      const message = `template '${decodeURIComponent(alias)}' not found`;
      assert.deepEqual([status, body], [404, { code: 404, message }]);
    }
    assert.equal((await test.ask('GET', '/templates/aliases/a%20b')).status, 400);
  });

  it('keep several builds under tags', async () => {
    const { default: first } = await tagsOf('app');
    assert.match(first!, UUID);
    const assigned = await assign('app', 'V1', 'stable');
    assert.deepEqual([assigned.status, assigned.body], [201, { buildID: first, tags: ['v1', 'stable'] }]);
    await test.ask('POST', `/sandboxes/${id}/snapshots`, { name: 'app' });
    const { default: second } = await tagsOf(templateID);
    assert.notEqual(second, first);
    assert.deepEqual(await tagsOf('default/app'), { default: second, v1: first, stable: first });
    // From a tag to another; the one that it names already stays.
    assert.equal((await assign(`${templateID}:default`, 'stable', 'default')).body.buildID, second);
    assert.deepEqual(await tagsOf('app:v1'), { default: second, v1: first, stable: second });
    const spawned = await test.ask('POST', '/v1/sandboxes', { template: 'app:stable' });
    assert.equal(spawned.status, 201);
    assert.equal(test.agent.lastCreate?.template, `${templateID}:stable`);
    await test.ask('DELETE', `/sandboxes/${spawned.body.id}`);

    const removed = await unassign('app', 'v1', 'nosuch');
    assert.deepEqual([removed.status, removed.body], [204, '']);
    assert.deepEqual(await tagsOf('app'), { default: second, stable: second });
    assert.equal(test.agent.templates.has(`${templateID}:v1`), false);
    assert.equal((await unassign('app', 'v1')).status, 404);
    assert.equal((await unassign('default/app', 'stable')).status, 204);
    assert.deepEqual(await tagsOf('app'), { default: second });
  });

  it('have their tags again when only the host knows them', async () => {
    await assign('app', 'kept');
    const { plane } = test.running;
    await plane.db.deleteFrom('templates').where('id', 'like', `${templateID}%`).execute();
    await syncTemplates(plane);
    assert.deepEqual(Object.keys(await tagsOf('app')).sort(), ['default', 'kept']);
    test.agent.templates.delete(`${templateID}:kept`);
    await syncTemplates(plane);
    assert.deepEqual(Object.keys(await tagsOf('app')), ['default']);
  });

  it('of unnamed snapshots have tags too', async () => {
    const { snapshotID } = (await test.ask('POST', `/sandboxes/${id}/snapshots`)).body;
    assert.equal((await assign(snapshotID, 'mine')).status, 201);
    const base = snapshotID.split(':')[0];
    assert.deepEqual(Object.keys(await tagsOf(base)).sort(), ['default', 'mine']);
    const listed = await test.ask('GET', `/snapshots?name=${base}%3Amine`);
    assert.deepEqual(listed.body, [{ snapshotID: `${base}:mine`, names: [] }]);
    assert.equal((await test.ask('DELETE', `/templates/${base}`)).status, 204);
    assert.equal((await test.ask('GET', `/templates/${base}/tags`)).status, 404);
  });

  it('refuse tags that make no sense, and leave those of base templates alone', async () => {
    for (const tag of ['', 'a b', 'a:b', 'a/b', 'ä', '0b6f0e2c-1d51-4c8e-9d7e-52c1c2a4e9b1', 'x'.repeat(129)])
      assert.equal((await assign('app', tag)).status, 400, tag);
    for (const body of [{}, { target: 'app' }, { target: 'app', tags: [] }, { target: 'a b', tags: ['x'] }])
      assert.equal((await test.ask('POST', '/templates/tags', body)).status, 400, JSON.stringify(body));
    assert.equal((await assign('nosuch', 'v1')).status, 404);
    assert.equal((await assign('app:nosuch', 'v1')).status, 404);
    assert.equal((await assign('base', 'v1')).status, 403);
    assert.deepEqual((await unassign('app', 'default')).status, 400);
    assert.equal((await unassign('nosuch', 'v1')).status, 404);
    assert.equal((await unassign('base', 'v1')).status, 403);
    assert.deepEqual(Object.keys(await tagsOf('base')), ['default']);
    test.agent.failNext('tagTemplate', new ThawError('unavailable', 'busy'));
    assert.equal((await assign('app', 'v1')).status, 503);
    assert.deepEqual(Object.keys(await tagsOf('app')), ['default']);
  });

  it('are listed and told with all their builds', async () => {
    await assign('app', 'v1');
    await test.ask('POST', `/sandboxes/${id}/snapshots`, { name: 'app' });
    const { default: newest, v1: oldest } = await tagsOf('app');
    const { body } = await test.ask('GET', '/templates');
    const app = body.find((template: { templateID: string }) => template.templateID === templateID);
    const { createdAt, updatedAt, lastSpawnedAt, ...rest } = app;
    assert.deepEqual(rest, {
      ...{ templateID, buildID: newest, public: false, aliases: ['app'], names: ['default/app'] },
      ...{ cpuCount: 2, memoryMB: 256, diskSizeMB: 2048, envdVersion: '0.6.13' },
      ...{ createdBy: null, spawnCount: 1, buildCount: 2, buildStatus: 'ready' },
    });
    assert.ok(createdAt <= updatedAt && lastSpawnedAt <= new Date().toISOString());
    const base = body.find((template: { templateID: string }) => template.templateID === 'base');
    assert.deepEqual(
      [base.public, base.aliases, base.names, base.cpuCount, base.memoryMB, base.diskSizeMB],
      [true, ['base'], ['base'], 1, 512, 4096],
    );
    const detail = (await test.ask('GET', '/templates/app')).body;
    assert.deepEqual([detail.templateID, detail.names, detail.spawnCount], [templateID, ['default/app'], 1]);
    assert.deepEqual(
      detail.builds.map(({ buildID, status, cpuCount }: Record<string, unknown>) => [
        buildID,
        status,
        cpuCount,
      ]),
      [newest, oldest].map((buildID) => [buildID, 'ready', 2]),
    );
    assert.equal((await test.ask('GET', '/templates/nosuch')).status, 404);

    const ids: string[] = [];
    for (let token = ''; ; ) {
      const { body, headers } = await test.ask('GET', `/v2/templates?limit=1&nextToken=${token}`);
      ids.push(...body.map((template: { templateID: string }) => template.templateID));
      token = headers.get('x-next-token') ?? '';
      if (token === '') break;
    }
    assert.deepEqual(ids.sort(), ['base', 'minimal', templateID].sort());
  });

  it("are their team's alone", async () => {
    assert.deepEqual((await test.ask('PATCH', '/templates/app', { public: false })).body, {});
    const v2 = await test.ask('PATCH', '/v2/templates/app', { public: false });
    assert.deepEqual([v2.status, v2.body], [200, { names: ['default/app'] }]);
    assert.equal((await test.ask('PATCH', '/templates/app', { public: true })).status, 400);
    assert.equal((await test.ask('PATCH', '/templates/base', { public: false })).status, 403);
    assert.equal((await test.ask('PATCH', '/v2/templates/nosuch', {})).status, 404);
    const teams = await test.ask('GET', '/teams');
    assert.deepEqual(teams.body, [{ teamID: 'default', name: 'default', apiKey: test.key, isDefault: true }]);
  });

  it('are not built, and there are no volumes and secrets: each path says why', async () => {
    const build = '0b6f0e2c-1d51-4c8e-9d7e-52c1c2a4e9b1';
    for (const [method, path] of [
      ['POST', '/templates'],
      ['POST', '/v2/templates'],
      ['POST', '/v3/templates'],
      ['POST', `/templates/app`],
      ['POST', `/templates/app/builds/${build}`],
      ['POST', `/v2/templates/app/builds/${build}`],
      ['GET', `/templates/app/builds/${build}/status?logsOffset=0`],
      ['GET', `/templates/app/builds/${build}/logs`],
      ['GET', `/templates/app/files/${'a'.repeat(64)}`],
      ['GET', '/volumes'],
      ['POST', '/volumes'],
      ['GET', '/volumes/v'],
      ['DELETE', '/volumes/v'],
      ['GET', '/volumecontent/v/path?path=%2F'],
      ['PUT', '/volumecontent/v/file?path=%2Fx'],
    ] as const) {
      const body = method === 'PUT' || method === 'POST' ? 'not JSON' : undefined;
      const answer = await test.ask(method, path, body);
      assert.deepEqual([answer.status, answer.body.code], [501, 501], `${method} ${path}`);
      assert.match(answer.body.message, /Thaw (builds no templates|has no volumes): /);
    }
    for (const [method, path, status] of [
      ['GET', '/secrets', 400],
      ['POST', '/secrets', 400],
      ['GET', '/secrets/x', 404],
      ['POST', '/secrets/x', 404],
      ['DELETE', '/secrets/x', 404],
    ] as const) {
      const answer = await test.ask(method, path, method === 'POST' ? {} : undefined);
      assert.deepEqual([answer.status, answer.body.code], [status, status], `${method} ${path}`);
    }
    assert.equal((await fetch(`${test.url}/v3/templates`, { method: 'POST' })).status, 401);
  });
});
