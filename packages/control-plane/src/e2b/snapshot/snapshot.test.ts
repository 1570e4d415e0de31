import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { TEMPLATE_ID, ThawError } from '@thaw/api';
import { type Answer, TestPlane, until } from '../../testing.ts';

describe('snapshots of the E2B API', () => {
  let test: TestPlane;
  let id: string;
  before(async () => {
    test = await TestPlane.start();
    id = await test.createSandbox();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const snapshot = (sandbox: string, body?: unknown): Promise<Answer> =>
    test.ask('POST', `/sandboxes/${sandbox}/snapshots`, body);
  const list = async (query = ''): Promise<string[]> => {
    const { status, body } = await test.ask('GET', `/snapshots${query}`);
    assert.equal(status, 200, JSON.stringify(body));
    return body.map(({ snapshotID }: { snapshotID: string }) => snapshotID);
  };
  const remove = (name: string): Promise<Answer> =>
    test.ask('DELETE', `/templates/${encodeURIComponent(name)}`);
  const spawn = (template: string): Promise<Answer> => test.ask('POST', '/v1/sandboxes', { template });

  it('without a name go by their id, and outlive their sandbox', async () => {
    const source = await test.createSandbox({ vcpus: 2, memory_mb: 256 });
    const { status, body } = await snapshot(source);
    assert.equal(status, 201);
    assert.deepEqual(Object.keys(body).sort(), ['names', 'snapshotID']);
    assert.deepEqual(body.names, []);
    const [base, tag] = body.snapshotID.split(':');
    assert.match(base, TEMPLATE_ID);
    assert.equal(tag, 'default');
    assert.equal((await test.ask('GET', `/sandboxes/${source}`)).body.state, 'running');
    await test.ask('DELETE', `/sandboxes/${source}`);
    const made = await test.running.plane.db.selectFrom('templates').selectAll().execute();
    assert.equal(made.find((row) => row.id === base)?.source_sandbox_id, source);
    const [one, other] = [await spawn(base), await spawn(base)];
    assert.deepEqual([one.status, other.status, one.body.vcpus], [201, 201, 2]);
    assert.notEqual(one.body.id, other.body.id);
    // Running sandboxes still use it; then it can go, once.
    const refused = await remove(body.snapshotID);
    assert.deepEqual(
      [refused.status, refused.body],
      [
        400,
        { code: 400, message: `template '${body.snapshotID}' is in use by 2 running or paused sandboxes` },
      ],
    );
    for (const { body: made } of [one, other]) await test.ask('DELETE', `/sandboxes/${made.id}`);
    const gone = await remove(body.snapshotID);
    assert.deepEqual([gone.status, gone.body], [204, '']);
    const again = await remove(body.snapshotID);
    assert.deepEqual(
      [again.status, again.body],
      [404, { code: 404, message: `template '${body.snapshotID}' not found` }],
    );
    assert.equal(test.agent.templates.has(base), false);
  });

  it('with a name are builds of one template, each under its tag', async () => {
    const first = await snapshot(id, { name: 'App' });
    assert.deepEqual(first.body, { snapshotID: 'default/app:default', names: ['default/app:default'] });
    const v1 = await snapshot(id, { name: 'default/app:v1.0' });
    assert.deepEqual(v1.body, { snapshotID: 'default/app:v1.0', names: ['default/app:v1.0'] });
    const again = await snapshot(id, { name: 'app:default' });
    assert.deepEqual(again.body, first.body);
    // One template, two heads.
    const heads = [...test.agent.templates.values()].filter(({ name }) => name.startsWith('app'));
    const base = heads.find(({ name }) => name === 'app')!.id;
    assert.deepEqual(heads.map(({ id }) => id).sort(), [base, `${base}:v1.0`]);
    assert.notEqual(heads[0]!.build!.id, heads[1]!.build!.id);

    const tagged = await spawn('app:v1.0');
    assert.equal(tagged.status, 201, JSON.stringify(tagged.body));
    assert.equal(test.agent.lastCreate?.template, `${base}:v1.0`);
    const seen = (await test.ask('GET', `/sandboxes/${tagged.body.id}`)).body;
    assert.deepEqual([seen.templateID, seen.alias], [base, 'app']);
    for (const name of [base, 'app', 'app:default', `${base}:default`]) {
      const { status, body } = await spawn(name);
      assert.equal(status, 201, name);
      assert.equal(test.agent.lastCreate?.template, base);
      await test.ask('DELETE', `/sandboxes/${body.id}`);
    }
    assert.equal((await spawn('app:v2')).status, 404);
    // A tag in use stays, others may go.
    assert.equal((await remove('default/app:v1.0')).status, 400);
    assert.equal((await remove('app')).status, 400);
    assert.equal((await remove('app:default')).status, 204);
    assert.equal((await spawn('app')).status, 404);
    // The template is still the same one when its default tag comes back, also by the native API.
    const native = await test.ask('POST', '/v1/snapshots', { sandbox_id: id, name: 'app' });
    assert.equal(native.body.id, base);
    await test.ask('POST', `/sandboxes/${tagged.body.id}/pause`);
    assert.equal((await remove('app')).status, 400);
    await test.ask('DELETE', `/sandboxes/${tagged.body.id}`);
    assert.equal((await remove('app')).status, 204);
    assert.ok(![...test.agent.templates.values()].some(({ name }) => name.startsWith('app')));
  });

  it('are listed newest first, by name, by sandbox, in pages', async () => {
    const source = await test.createSandbox();
    for (const name of ['many:a', 'many:b', 'other', 'many:c']) {
      assert.equal((await snapshot(source, { name })).status, 201);
    }
    const all = ['many:c', 'other:default', 'many:b', 'many:a'].map((name) => `default/${name}`);
    assert.deepEqual(await list(`?sandboxID=${source}`), all);
    const many = all.filter((name) => name.includes('many'));
    for (const name of ['many', 'default%2Fmany', 'MANY'])
      assert.deepEqual(await list(`?name=${name}`), many);
    assert.deepEqual(await list('?name=default%2Fmany%3Ab'), ['default/many:b']);
    for (const query of [
      'name=nosuch',
      'name=many%3Az',
      'name=%20!',
      'name=else%2Fmany',
      'sandboxID=sbnosuch',
    ])
      assert.deepEqual(await list(`?${query}`), [], query);

    const pages: string[][] = [];
    for (let token = ''; ; ) {
      const { body, headers } = await test.ask('GET', `/snapshots?name=many&limit=2&nextToken=${token}`);
      pages.push(body.map(({ snapshotID }: { snapshotID: string }) => snapshotID));
      token = headers.get('x-next-token') ?? '';
      if (token === '') break;
    }
    assert.deepEqual(pages, [many.slice(0, 2), many.slice(2)]);
    const whole = await test.ask('GET', '/snapshots?name=many&limit=3');
    assert.deepEqual([whole.body.length, whole.headers.get('x-next-token')], [3, null]);
    for (const query of ['limit=0', 'limit=101', 'limit=x', 'nextToken=x'])
      assert.equal((await test.ask('GET', `/snapshots?${query}`)).status, 400, query);
    assert.ok(!(await list()).some((name) => /base|minimal/.test(name)));
    for (const name of ['many', 'other']) assert.equal((await remove(name)).status, 204);
  });

  it('wait for one another where they are of one template or one sandbox', async () => {
    const [one, other] = [await test.createSandbox(), await test.createSandbox()];
    const release = test.agent.hold('createSnapshot');
    const both = [
      snapshot(one, { name: 'shared:one' }),
      snapshot(other, { name: 'shared:other' }),
      snapshot(one),
    ];
    await until(() => test.agent.calls.at(-1) === 'createSnapshot');
    release();
    for (const { status, body } of await Promise.all(both)) assert.equal(status, 201, JSON.stringify(body));
    const heads = [...test.agent.templates.values()].filter(({ name }) => name.startsWith('shared'));
    assert.equal(heads.length, 2);
    assert.equal(new Set(heads.map(({ id }) => id.split(':')[0])).size, 1);
  });

  it('keep their sandbox as it is when they fail', async () => {
    test.agent.failNext('createSnapshot', new ThawError('exhausted', 'the disk is full'));
    const full = await snapshot(id, { name: 'full' });
    assert.deepEqual([full.status, full.body], [429, { code: 429, message: 'the disk is full' }]);
    assert.equal(full.headers.get('should-retry'), 'false');
    assert.equal((await test.ask('GET', `/sandboxes/${id}`)).body.state, 'running');
    assert.deepEqual(await list('?name=full'), []);
  });

  it('refuse what makes no sense', async () => {
    for (const name of [
      '',
      'a b',
      'a/b/c',
      'a:b:c',
      '../x',
      'app:',
      ':v1',
      'else/app',
      'ä',
      'x'.repeat(64),
    ]) {
      const { status, body } = await snapshot(id, { name });
      assert.deepEqual([status, body.code], [400, 400], name);
    }
    assert.equal((await snapshot(id, { name: 'base' })).status, 409);
    assert.equal((await snapshot(id, { name: 'base:v2' })).status, 409);
    assert.equal((await snapshot(id, { name: `tpl${'a'.repeat(20)}` })).status, 404);
    assert.equal((await snapshot(id, { memory: false })).status, 400);
    assert.equal((await snapshot(id, { memory: true, name: 'plain', other: 1 })).status, 201);
    assert.equal((await snapshot('sbaaaaaaaaaaaaaaaaaaaa')).status, 404);
    assert.equal((await remove('base')).status, 409);
    assert.equal((await remove('no such')).status, 400);
    const stopped = await test.createSandbox();
    await test.ask('DELETE', `/sandboxes/${stopped}`);
    assert.equal((await snapshot(stopped)).status, 404);
  });
});
