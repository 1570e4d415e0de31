import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import { migrate } from '../db/migrations.ts';
import { memoryDatabase } from '../db/pglite.ts';
import { recordTemplate, syncTemplates } from '../template/sync.ts';
import { insertOwner, listOwners } from '../template/table.ts';
import { type Answer, TestPlane, until } from '../testing.ts';

describe('teams', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  /** A request with another key than the operator's. */
  const as = (key: string, method: string, path: string, body?: unknown) =>
    test.ask(method, path, body, { 'X-API-Key': key });
  const makeTeam = async (name: string, granted: object = {}) => {
    const { status, body } = await test.ask('POST', '/v1/teams', { name, granted });
    assert.equal(status, 201, JSON.stringify(body));
    return { id: body.id as string, name, key: body.key.key as string, keyId: body.key.id as string };
  };
  const refused = ({ status, body }: Answer, expected: number, message: RegExp) => {
    assert.equal(status, expected, JSON.stringify(body));
    assert.match(body.error.message, message);
  };

  it('are made with a first key that administrates them, and nothing else', async () => {
    const { body } = await test.ask('POST', '/v1/teams', { name: 'first', granted: { sandboxes: 2 } });
    assert.match(body.id, /^team_[a-z0-9]{16}$/);
    assert.match(body.key.key, /^e2b_[0-9a-f]{40}$/);
    assert.deepEqual([body.key.admin, body.key.operator], [true, false]);
    assert.equal(body.granted.sandboxes, 2);
    const { key } = body.key;
    assert.equal((await as(key, 'GET', '/v1/team')).body.name, 'first');
    assert.deepEqual((await as(key, 'GET', '/v1/sandboxes')).body, []);
    const second = await as(key, 'POST', '/v1/keys', { name: 'ci' });
    assert.equal(second.status, 201);
    assert.equal((await as(key, 'GET', '/v1/keys')).body.length, 2);
    const listed = await test.ask('GET', '/v1/teams');
    assert.deepEqual(
      listed.body.map((team: { name: string }) => team.name),
      ['default', 'first'],
    );
    assert.doesNotMatch(JSON.stringify(listed.body), /e2b_/);
    for (const team of ['first', body.id])
      assert.equal((await test.ask('GET', `/v1/teams/${team}`)).body.id, body.id);
  });

  it('are for operators alone', async () => {
    const { id, key } = await makeTeam('plain');
    const { body: admin } = await test.ask('POST', '/v1/keys', { name: 'admin', admin: true });
    for (const other of [key, admin.key]) {
      for (const [method, path, body] of [
        ['POST', '/v1/teams', { name: 'x' }],
        ['GET', '/v1/teams', undefined],
        ['GET', `/v1/teams/${id}`, undefined],
        ['GET', '/v1/teams/nosuch', undefined],
        ['PATCH', `/v1/teams/${id}`, { granted: { sandboxes: null } }],
        ['DELETE', `/v1/teams/${id}`, undefined],
        ['POST', `/v1/teams/${id}/keys`, { name: 'x' }],
        ['GET', `/v1/teams/${id}/keys`, undefined],
        ['PATCH', `/v1/teams/${id}/keys/key_0000000000000000`, {}],
        ['DELETE', `/v1/teams/${id}/keys/key_0000000000000000`, undefined],
        ['GET', '/metrics', undefined],
      ] as const)
        refused(await as(other, method, path, body), 403, /no operator's/);
      const wish = { name: 'up', operator: true };
      refused(await as(other, 'POST', '/v1/keys', wish), 403, /no operator's/);
    }
    // Nor does an administrator of the operators' team touch their keys.
    const keys: { id: string; operator: boolean }[] = (await test.ask('GET', '/v1/keys')).body;
    const own = keys.find(({ operator }) => operator)!;
    refused(await as(admin.key, 'DELETE', `/v1/keys/${own.id}`), 403, /no operator's/);
    refused(await as(admin.key, 'PATCH', `/v1/keys/${own.id}`, { name: 'mine' }), 403, /no operator's/);
    await test.ask('DELETE', `/v1/keys/${admin.id}`);
  });

  it('have operators, of whom one is always left', async () => {
    const made = await test.ask('POST', '/v1/keys', { name: 'second', operator: true });
    assert.deepEqual([made.body.admin, made.body.operator], [true, true]);
    assert.equal((await as(made.body.key, 'GET', '/v1/teams')).status, 200);
    const keys: { id: string; operator: boolean }[] = (await test.ask('GET', '/v1/keys')).body;
    const first = keys.find(({ id, operator }) => operator && id !== made.body.id)!;
    assert.equal((await test.ask('DELETE', `/v1/keys/${made.body.id}`)).status, 204);
    const { body: admin } = await test.ask('POST', '/v1/keys', { name: 'spare', admin: true });
    refused(await test.ask('DELETE', `/v1/keys/${first.id}`), 409, /last/);
    await test.ask('DELETE', `/v1/keys/${admin.id}`);
    const { id } = await makeTeam('no-operators');
    const wish = { name: 'x', operator: true };
    refused(await test.ask('POST', `/v1/teams/${id}/keys`, wish), 400, /operator: only keys of the team/);
  });

  it('have names of their own, which can change', async () => {
    const { id } = await makeTeam('before');
    for (const name of ['before', 'default'])
      refused(await test.ask('POST', '/v1/teams', { name }), 409, /exists/);
    const { body: renamed } = await test.ask('PATCH', `/v1/teams/before`, { name: 'after' });
    assert.deepEqual([renamed.id, renamed.name], [id, 'after']);
    refused(await test.ask('GET', '/v1/teams/before'), 404, /before does not exist/);
    refused(await test.ask('PATCH', '/v1/teams/after', { name: 'plain' }), 409, /exists/);
    refused(await test.ask('PATCH', '/v1/teams/after', { name: 'default' }), 409, /exists/);
    for (const name of ['', 'A', 'a b', '-a', 'a'.repeat(64), 'team_aaaaaaaaaaaaaaaa', 5])
      assert.equal((await test.ask('POST', '/v1/teams', { name })).status, 400, String(name));
    for (const team of ['nosuch', '%00', "'--", 'team_aaaaaaaaaaaaaaaa'])
      assert.equal((await test.ask('GET', `/v1/teams/${team}`)).status, 404, team);
  });

  it('have at most what they are granted, whatever quota they give themselves', async () => {
    const { id, key } = await makeTeam('granted', { sandboxes: 2 });
    refused(await as(key, 'PATCH', '/v1/team', { quota: { sandboxes: 3 } }), 403, /grants this team 2/);
    const own = await as(key, 'PATCH', '/v1/team', { quota: { sandboxes: null, vcpus: 9 } });
    assert.deepEqual([own.body.quota.sandboxes, own.body.quota.vcpus], [2, 9]);
    for (const status of [201, 201, 429])
      assert.equal((await as(key, 'POST', '/v1/sandboxes', {})).status, status);
    await as(key, 'PATCH', '/v1/team', { quota: { sandboxes: 1 } });
    assert.equal((await as(key, 'GET', '/v1/team')).body.quota.sandboxes, 1);
    const more = await test.ask('PATCH', `/v1/teams/${id}`, { granted: { sandboxes: 3 } });
    assert.deepEqual([more.body.quota.sandboxes, more.body.granted.sandboxes], [1, 3]);
    await as(key, 'PATCH', '/v1/team', { quota: { sandboxes: 3 } });
    assert.equal((await as(key, 'POST', '/v1/sandboxes', {})).status, 201);
    await test.ask('DELETE', `/v1/teams/${id}?force=true`);
  });

  it("have keys that an operator makes, lists and revokes, of any team by that team's path only", async () => {
    const [one, two] = [await makeTeam('one'), await makeTeam('two')];
    const made = await test.ask('POST', '/v1/teams/one/keys', { name: 'more', quota: { vcpus: 1 } });
    assert.equal(made.status, 201);
    assert.equal((await as(made.body.key, 'GET', '/v1/team')).body.id, one.id);
    const { id } = made.body;
    for (const path of [`/v1/keys/${id}`, `/v1/teams/two/keys/${id}`]) {
      refused(await test.ask('DELETE', path), 404, /does not exist/);
      refused(await test.ask('PATCH', path, {}), 404, /does not exist/);
    }
    const path = `/v1/teams/one/keys/${id}`;
    assert.equal((await test.ask('PATCH', path, { quota: { vcpus: 2 } })).body.quota.vcpus, 2);
    assert.equal((await test.ask('GET', '/v1/teams/one/keys')).body.length, 2);
    assert.equal((await test.ask('DELETE', path)).status, 204);
    assert.equal((await as(made.body.key, 'GET', '/v1/team')).status, 401);
    refused(await test.ask('DELETE', `/v1/teams/one/keys/${one.keyId}`), 409, /last one/);
    assert.equal((await as(two.key, 'GET', '/v1/team')).status, 200);
  });

  it('are deleted when they have nothing, or with all they have', async () => {
    const { id, key } = await makeTeam('going');
    const { body: sandbox } = await as(key, 'POST', '/v1/sandboxes', {});
    const wish = { sandbox_id: sandbox.id, name: 'of-going' };
    const { body: template } = await as(key, 'POST', '/v1/snapshots', wish);
    refused(await test.ask('DELETE', '/v1/teams/going'), 409, /1 sandboxes and 1 templates/);
    assert.equal((await as(key, 'GET', `/v1/sandboxes/${sandbox.id}`)).body.status, 'running');
    refused(await test.ask('DELETE', '/v1/teams/default?force=true'), 409, /operators/);

    // What fails leaves it closed, without valid keys; the next delete goes on.
    test.agent.failNext('deleteSnapshot', new ThawError('unavailable', 'busy'));
    assert.equal((await test.ask('DELETE', '/v1/teams/going?force=true')).status, 503);
    assert.equal((await as(key, 'GET', '/v1/team')).status, 401);
    assert.equal((await test.ask('GET', '/v1/teams/going')).body.closing, true);
    assert.equal((await test.ask('POST', '/v1/teams/going/keys', { name: 'x' })).status, 404);
    assert.ok(!test.agent.sandboxes.has(sandbox.id) && test.agent.templates.has(template.id));
    assert.equal((await test.ask('DELETE', '/v1/teams/going?force=true')).status, 204);
    assert.ok(!test.agent.templates.has(template.id));
    assert.equal((await test.ask('GET', `/v1/teams/${id}`)).status, 404);
    assert.equal((await test.ask('DELETE', '/v1/teams/going')).status, 404);

    const empty = await makeTeam('empty');
    const { body: one } = await as(empty.key, 'POST', '/v1/sandboxes', {});
    await as(empty.key, 'DELETE', `/v1/sandboxes/${one.id}`);
    assert.equal((await test.ask('DELETE', '/v1/teams/empty')).status, 204);
  });

  it('that are being deleted get nothing from a control plane that has not heard of it', async () => {
    const { id, key } = await makeTeam('late');
    assert.equal((await as(key, 'GET', '/v1/team')).status, 200);
    await test.withDatabase((db) =>
      db.updateTable('teams').set({ closing_at: new Date() }).where('id', '=', id).execute(),
    );
    refused(await as(key, 'POST', '/v1/sandboxes', {}), 401, /not valid/);
    assert.equal((await test.ask('DELETE', '/v1/teams/late')).status, 204);
  });

  it('wait for a snapshot under way before they go', async () => {
    const { key } = await makeTeam('waiting');
    const { body: sandbox } = await as(key, 'POST', '/v1/sandboxes', {});
    const release = test.agent.hold('createSnapshot');
    const snapshot = as(key, 'POST', '/v1/snapshots', { sandbox_id: sandbox.id, name: 'late' });
    await until(() => test.agent.calls.at(-1) === 'createSnapshot');
    const deleted = test.ask('DELETE', '/v1/teams/waiting?force=true');
    release();
    assert.equal((await deleted).status, 204);
    const { id } = (await snapshot).body;
    assert.ok(!test.agent.templates.has(id) && !test.agent.sandboxes.has(sandbox.id));
  });

  it('keep a template that is found on the host before its maker has written it down', async () => {
    const { id: teamId, key } = await makeTeam('makers');
    const { body: sandbox } = await as(key, 'POST', '/v1/sandboxes', {});
    // As another control plane sees it: it knows of no verb under way.
    const { plane } = test.running;
    const { body: made } = await as(key, 'POST', '/v1/snapshots', { sandbox_id: sandbox.id, name: 'app' });
    await plane.db.deleteFrom('templates').where('id', '=', made.id).execute();
    await syncTemplates(plane);
    const teamOf = async (template: string) =>
      (await plane.db.selectFrom('templates').select('team_id').where('id', '=', template).execute())[0]
        ?.team_id;
    assert.equal(await teamOf(made.id), teamId);
    assert.equal((await test.ask('POST', '/v1/sandboxes', { template: 'app' })).status, 404);
    assert.equal((await as(key, 'POST', '/v1/sandboxes', { template: 'app' })).status, 201);

    // One that nobody is known to own is nobody's.
    const stray = { ...test.agent.templates.get(made.id)!, id: 'tplofnobodyaaaaaaaaaaaa', name: 'stray' };
    test.agent.templates.set(stray.id, stray);
    await syncTemplates(plane);
    assert.equal(await teamOf(stray.id), undefined);
    await insertOwner(plane.db, stray.id, teamId);
    await syncTemplates(plane);
    assert.equal(await teamOf(stray.id), teamId);
    await recordTemplate(plane, stray, 'default', null);
    assert.equal(await teamOf(stray.id), teamId, 'a row keeps its team');
  });
});

it('an upgrade makes operators of the administrators that there were, and knows whose templates are', async () => {
  const db = memoryDatabase();
  try {
    await migrate(db, '0005_template_errors');
    const key = { team_id: 'default', prefix: 'e2b_', hash: 'h' };
    for (const admin of [true, false]) {
      const row = { ...key, id: `key_${admin}`, hash: `${admin}`, admin };
      await db.insertInto('api_keys').values(row).execute();
    }
    const template = { type: 'snapshot', disk_mb: 1, name: 'app' } as const;
    await db
      .insertInto('templates')
      .values({ ...template, id: 'tpl', team_id: 'default' })
      .execute();
    await migrate(db);
    const keys = await db.selectFrom('api_keys').select(['id', 'operator']).orderBy('id').execute();
    assert.deepEqual(keys, [
      { id: 'key_false', operator: false },
      { id: 'key_true', operator: true },
    ]);
    assert.equal((await listOwners(db)).get('tpl'), 'default');
    const wrong = { ...key, id: 'key_wrong', hash: 'w', operator: true };
    await assert.rejects(db.insertInto('api_keys').values(wrong).execute(), /api_keys_operator/);
  } finally {
    await db.destroy();
  }
});
