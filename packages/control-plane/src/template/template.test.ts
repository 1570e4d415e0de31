import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { TEMPLATE_ID, ThawError } from '@thaw/api';
import { type Answer, TestPlane, until } from '../testing.ts';
import { syncTemplates } from './sync.ts';

describe('snapshots', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start();
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const snapshot = (sandbox_id: string, name?: string, query = ''): Promise<Answer> =>
    test.ask('POST', `/v1/snapshots${query}`, { sandbox_id, ...(name !== undefined && { name }) });
  const names = async (query = ''): Promise<string[]> =>
    (await test.ask('GET', `/v1/snapshots${query}`)).body
      .map((template: { name: string }) => template.name)
      .sort();

  it('list the base templates of the host', async () => {
    await until(async () => (await names('?type=base')).length === 2);
    assert.deepEqual(await names('?type=base'), ['base', 'minimal']);
    assert.deepEqual(await names('?type=snapshot'), []);
    for (const query of ['?type=other', '?type=', '?limit=0', '?x=1']) {
      assert.equal((await test.ask('GET', `/v1/snapshots${query}`)).status, 400, query);
    }
  });

  it('stay when the host can not read them, and follow the host again when it can', async () => {
    const id = await test.createSandbox();
    const made = await snapshot(id, 'fragile');
    assert.equal(made.status, 201);
    const whole = test.agent.templates.get(made.body.id)!;
    const { id: templateId, $typeName } = whole;
    test.agent.templates.set(templateId, {
      ...{
        $typeName,
        id: templateId,
        name: '',
        type: '',
        vcpus: 0,
        memoryMb: 0,
        diskMb: 0,
        createdAtUnix: 0n,
      },
      errorReason: 'the head of template is damaged',
    });
    await syncTemplates(test.running.plane);
    const kept = (await names('?type=snapshot')).includes('fragile');
    assert.ok(kept, 'a row of a damaged template is kept');
    const shown = async () =>
      (await test.ask('GET', '/v1/snapshots')).body.find(({ id }: { id: string }) => id === templateId)
        .error_reason;
    assert.equal(await shown(), 'the head of template is damaged');
    test.agent.templates.set(templateId, whole);
    await syncTemplates(test.running.plane);
    assert.ok((await names('?type=snapshot')).includes('fragile'));
    assert.equal(await shown(), undefined);
    test.agent.templates.delete(templateId);
    await syncTemplates(test.running.plane);
    assert.ok(!(await names('?type=snapshot')).includes('fragile'));
  });

  it('are made of running and paused sandboxes, which keep their state, and spawn', async () => {
    const id = await test.createSandbox({ vcpus: 2, memory_mb: 256, disk_mb: 2048 });
    const made = await snapshot(id, 'My-App');
    assert.equal(made.status, 201, JSON.stringify(made.body));
    assert.equal(made.body.name, 'my-app');
    assert.match(made.body.id, TEMPLATE_ID);
    assert.equal(made.body.type, 'snapshot');
    assert.equal(made.body.size_bytes, 4096);
    assert.deepEqual([made.body.vcpus, made.body.memory_mb, made.body.disk_mb], [2, 256, 2048]);
    const source = await test.ask('GET', `/v1/sandboxes/${id}`);
    assert.equal(source.body.status, 'running');
    assert.equal(source.body.build.id, made.body.build.id);

    const spawned = await test.ask('POST', '/v1/sandboxes', { template: 'my-app', vcpus: 2 });
    assert.equal(spawned.status, 201);
    assert.deepEqual([spawned.body.vcpus, spawned.body.memory_mb, spawned.body.disk_mb], [2, 256, 2048]);
    assert.equal(spawned.body.template, 'my-app');
    assert.equal(test.agent.lastCreate?.template, made.body.id);
    for (const wish of [{ vcpus: 1 }, { memory_mb: 512 }, { disk_mb: 4096 }]) {
      const refused = await test.ask('POST', '/v1/sandboxes', { template: made.body.id, ...wish });
      assert.equal(refused.status, 400);
      assert.match(refused.body.error.message, new RegExp(`${Object.keys(wish)[0]}: template my-app has`));
    }

    await test.ask('POST', `/v1/sandboxes/${id}/pause`);
    const ofPaused = await snapshot(id);
    assert.equal(ofPaused.status, 201);
    assert.equal(ofPaused.body.name, ofPaused.body.id);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'paused');
    assert.deepEqual(await names('?type=snapshot'), ['my-app', ofPaused.body.name].sort());
  });

  it('are overwritten only when asked, under the same id', async () => {
    const id = await test.createSandbox();
    const first = await snapshot(id, 'twice');
    const refused = await snapshot(id, 'twice');
    assert.equal(refused.status, 409);
    assert.equal(refused.body.error.code, 'already_exists');
    for (const query of ['?overwrite=1', '?overwrite=', '?overwrite=yes', '?force=true']) {
      assert.equal((await snapshot(id, 'twice', query)).status, 400, query);
    }
    const second = await snapshot(id, 'twice', '?overwrite=true');
    assert.equal(second.status, 201);
    assert.equal(second.body.id, first.body.id);
    assert.notEqual(second.body.build.id, first.body.build.id);
    assert.equal((await names()).filter((name) => name === 'twice').length, 1);
  });

  it('keep the template when an overwrite cannot be done', async () => {
    const id = await test.createSandbox();
    const made = await snapshot(id, 'kept');
    const calls = test.agent.calls.length;
    assert.equal((await snapshot('sbaaaaaaaaaaaaaaaaaaaa', 'kept', '?overwrite=true')).status, 404);
    const stopped = await test.createSandbox();
    await test.ask('DELETE', `/v1/sandboxes/${stopped}`);
    assert.equal((await snapshot(stopped, 'kept', '?overwrite=true')).status, 409);
    assert.equal(test.agent.calls.slice(calls).includes('createSnapshot'), false);
    test.agent.failNext('createSnapshot', new ThawError('agent_error', 'the disk is full'));
    assert.equal((await snapshot(id, 'kept', '?overwrite=true')).status, 502);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'running');
    const listed = (await test.ask('GET', '/v1/snapshots')).body.find(
      (t: { name: string }) => t.name === 'kept',
    );
    assert.equal(listed.build.id, made.body.build.id);
  });

  it('leave base templates alone', async () => {
    const id = await test.createSandbox();
    for (const query of ['', '?overwrite=true']) {
      const refused = await snapshot(id, 'minimal', query);
      assert.equal(refused.status, 409);
      assert.match(refused.body.error.message, /base template/);
    }
    const kept = await test.ask('DELETE', '/v1/snapshots/base');
    assert.equal(kept.status, 409);
    assert.deepEqual(await names('?type=base'), ['base', 'minimal']);
    assert.equal(test.agent.templates.has('base'), true);
  });

  it('refuse bad names and bodies', async () => {
    const id = await test.createSandbox();
    for (const name of [
      '',
      '..',
      '../x',
      'a/b',
      '-a',
      '_a',
      'a b',
      '$(id)',
      'ä',
      'a\0',
      'a'.repeat(64),
      `tpl${'a'.repeat(20)}`,
    ]) {
      const answer = await snapshot(id, name);
      assert.equal(answer.status, 400, `${name}: ${JSON.stringify(answer.body)}`);
      assert.match(answer.body.error.message, /name/);
    }
    for (const body of [
      {},
      { sandbox_id: 1 },
      { sandbox_id: '..' },
      { sandbox_id: id, name: 5 },
      { sandbox_id: id, x: 1 },
      '{',
    ]) {
      assert.equal((await test.ask('POST', '/v1/snapshots', body)).status, 400, JSON.stringify(body));
    }
    assert.equal(test.agent.count('createSnapshot') > 0, true);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'running');
  });

  it('are frozen when their warm-up is done, and not if it fails', async () => {
    const id = await test.createSandbox({ auto_resume: true });
    const folder = mkdtempSync(path.join(os.tmpdir(), 'thaw-warm-up-'));
    const warm = (name: string, warm_up: object) =>
      test.ask('POST', '/v1/snapshots', { sandbox_id: id, name, warm_up });
    try {
      const run = [`echo one >> ${folder}/said`, `(sleep 0.5; touch ${folder}/up) > ${folder}/out 2>&1 &`];
      const made = await warm('warm', { run, ready: `echo asked >> ${folder}/said; test -e ${folder}/up` });
      assert.equal(made.status, 201, JSON.stringify(made.body));
      const [first, ...asked] = readFileSync(`${folder}/said`, 'utf8').trim().split('\n');
      assert.deepEqual([first, new Set(asked), asked.length > 1], ['one', new Set(['asked']), true]);
      const failed = await warm('cold', { run: ['true', 'exit 3', `touch ${folder}/never`] });
      assert.deepEqual([failed.status, failed.body.error.code], [409, 'invalid_state']);
      assert.match(failed.body.error.message, /command 2 of the warm-up ended with 3/);
      for (const wish of [{ ready: 'false' }, { run: ['sleep 30'] }]) {
        const late = await warm('cold', { ...wish, timeout_sec: 1 });
        assert.deepEqual([late.status, late.body.error.code], [504, 'timeout']);
        assert.match(late.body.error.message, /of the warm-up did not succeed in time/);
      }
      assert.ok(!(await names()).includes('cold') && !existsSync(`${folder}/never`));
      for (const bad of [
        { run: 'true' },
        { run: [''] },
        { timeout_sec: 0 },
        { timeout_sec: 241 },
        { x: 1 },
      ]) {
        assert.equal((await warm('cold', bad)).status, 400, JSON.stringify(bad));
      }
      await test.ask('POST', `/v1/sandboxes/${id}/pause`);
      assert.equal((await warm('woken', { run: ['true'] })).status, 201);
      assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.status, 'running');
      await test.ask('PATCH', `/v1/sandboxes/${id}`, { auto_resume: false });
      await test.ask('POST', `/v1/sandboxes/${id}/pause`);
      assert.equal((await warm('cold', { run: ['true'] })).status, 409);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('have one writer for each name and each sandbox', async () => {
    const [a, b] = [await test.createSandbox(), await test.createSandbox()];
    const release = test.agent.hold('createSnapshot');
    const first = snapshot(a, 'contended');
    await until(() => test.agent.calls.at(-1) === 'createSnapshot');
    assert.equal((await snapshot(b, 'contended')).status, 409);
    assert.equal((await snapshot(a, 'another')).status, 409);
    const paused = await test.ask('POST', `/v1/sandboxes/${a}/pause`);
    assert.match(paused.body.error.message, /snapshotting/);
    const joined = snapshot(a, 'contended');
    assert.equal((await test.ask('GET', `/v1/sandboxes/${a}`)).body.status, 'snapshotting');
    release();
    assert.deepEqual((await joined).body, (await first).body);
    assert.equal((await first).status, 201);
  });

  it('are deleted, once the host has deleted them', async () => {
    const id = await test.createSandbox();
    const made = await snapshot(id, 'gone');
    test.agent.failNext('deleteSnapshot', new ThawError('unavailable', 'busy'));
    assert.equal((await test.ask('DELETE', '/v1/snapshots/gone')).status, 503);
    assert.ok((await names()).includes('gone'));
    assert.equal((await test.ask('DELETE', '/v1/snapshots/gone')).status, 204);
    assert.equal(test.agent.templates.has(made.body.id), false);
    for (const name of ['gone', 'nosuch', '..%2fbase', '%00', 'x'.repeat(100)]) {
      assert.equal((await test.ask('DELETE', `/v1/snapshots/${name}`)).status, 404, name);
    }
    const spawn = await test.ask('POST', '/v1/sandboxes', { template: 'gone' });
    assert.equal(spawn.status, 404);
  });

  it('keep both of two heads of one name: the one without a row goes by its id', async () => {
    const id = await test.createSandbox();
    const made = await snapshot(id, 'given-anew');
    const rest = { ...test.agent.templates.get(made.body.id)!, id: 'tplrestofacutoffcreate00' };
    test.agent.templates.set(rest.id, rest);
    for (let round = 0; round < 2; round++) await syncTemplates(test.running.plane);
    const all: { id: string; name: string }[] = (await test.ask('GET', '/v1/snapshots?type=snapshot')).body;
    const nameOf = (wanted: string) => all.find((template) => template.id === wanted)?.name;
    assert.deepEqual([nameOf(made.body.id), nameOf(rest.id)], ['given-anew', rest.id]);
    assert.equal((await test.ask('DELETE', `/v1/snapshots/${rest.id}`)).status, 204);
    assert.ok(test.agent.templates.has(made.body.id) && !test.agent.templates.has(rest.id));
    assert.equal((await test.ask('DELETE', '/v1/snapshots/given-anew')).status, 204);
  });

  it('follow the host after a restart', async () => {
    const id = await test.createSandbox();
    const lost = await snapshot(id, 'lost');
    const kept = await snapshot(id, 'still-here');
    await test.restart(async () => {
      test.agent.templates.delete(lost.body.id);
      test.agent.templates.get(kept.body.id)!.vcpus = 7;
    });
    await until(async () => !(await names()).includes('lost'));
    const found = (await test.ask('GET', '/v1/snapshots')).body.find(
      (t: { name: string }) => t.name === 'still-here',
    );
    assert.equal(found.vcpus, 7);
    assert.equal(found.created_at, kept.body.created_at);
  });
});
