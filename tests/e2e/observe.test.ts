/** What an operator can see of a host: figures, histories, consoles and logs, compared with what this test did. */
import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { Figures, type Labels } from './figures.ts';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

/** A page and a bit more than rounding: times cross two processes as decimal text. */
const close = (a: number, b: number, within: number) =>
  assert.ok(Math.abs(a - b) <= within, `${a} is not within ${within} of ${b}`);

describe('what an operator sees', () => {
  let thaw: TestThaw;
  before(async () => {
    thaw = await startThaw();
  });
  after(() => thaw?.stop());

  const figures = async () => {
    const { status, body } = await thaw.api<string>('GET', '/metrics');
    assert.equal(status, 200);
    return new Figures(body);
  };

  it('counts steps, pages, bytes, slots and sandboxes as they are', async () => {
    // What the first create keeps is there from then on.
    await thaw.sdk.sandboxes.delete((await thaw.sdk.sandboxes.create()).id);
    const start = await figures();
    const { id } = await thaw.sdk.sandboxes.create();
    await thaw.sh(id, 'head -c 8000000 /dev/urandom > /dev/shm/dirty');
    const running = await figures();
    assert.equal(running.sum('thaw_slots', { state: 'taken' }), 1);
    assert.equal(running.sum('thaw_host_sandboxes', { status: 'running' }), 1);
    assert.equal(running.sum('thaw_sandboxes', { status: 'running' }), 1);

    const paused = await thaw.sdk.sandboxes.pause(id);
    const sealed = await figures();
    const grown = (name: string, labels?: Labels) => sealed.sum(name, labels) - start.sum(name, labels);
    assert.equal(sealed.sum('thaw_slots', { state: 'taken' }), 0);
    assert.equal(grown('thaw_verb_ms_count', { verb: 'pause', outcome: 'done' }), 1);
    for (const [label, ms] of Object.entries(paused.timings_ms ?? {})) {
      const [verb, step] = label.includes(':') ? label.split(':') : ['seal', label];
      const labels = { verb: verb!, step: step! };
      assert.equal(grown('thaw_step_ms_count', labels), 1, label);
      close(grown('thaw_step_ms_sum', labels), ms, 0.01);
    }
    const dirty = grown('thaw_dirty_bytes_total', { image: 'memory', kind: 'stored' });
    assert.ok(dirty >= 8_000_000, `${dirty} bytes`);
    assert.ok(dirty <= paused.build!.stored_bytes, 'what was dirty is what was stored');
    close(grown('thaw_stored_bytes'), paused.build!.stored_bytes, 64 * 1024);
    assert.equal(grown('thaw_builds'), 1);

    await thaw.sdk.sandboxes.resume(id);
    await thaw.sh(id, 'md5sum /dev/shm/dirty');
    const stats = await thaw.sdk.sandboxes.stats(id);
    const resumed = await figures();
    assert.ok(stats.faults > 0);
    assert.ok(resumed.sum('thaw_page_faults_total') >= stats.faults);
    assert.ok(resumed.sum('thaw_pages_total') >= stats.pages_faulted);
    assert.ok(resumed.sum('thaw_page_bytes_total', { source: 'last_build' }) >= 8_000_000);

    await thaw.sdk.sandboxes.delete(id);
    const end = await figures();
    const stopped = (of: Figures) => of.sum('thaw_sandboxes', { status: 'stopped' });
    assert.equal(stopped(end) - stopped(start), 1);
    assert.equal(end.sum('thaw_orphans'), 0);
    assert.equal(end.sum('thaw_stored_bytes'), start.sum('thaw_stored_bytes'));
    for (const name of ['thaw_page_faults_total', 'thaw_pages_total', 'thaw_page_bytes_total'])
      assert.ok(end.sum(name) >= resumed.sum(name), `${name} never falls`);
  });

  it('has the history of a sandbox, and its console across its runs', async () => {
    const { id } = await thaw.sdk.sandboxes.create();
    await thaw.sh(id, 'echo first run > /dev/console');
    await thaw.sdk.sandboxes.pause(id);
    assert.match(await thaw.sdk.sandboxes.logs(id), /first run\r?\n/);
    await thaw.sdk.sandboxes.resume(id);
    await thaw.sh(id, 'echo second run > /dev/console');
    const said = await eventually(async () => {
      const text = await thaw.sdk.sandboxes.logs(id);
      assert.match(text, /second run/);
      return text;
    });
    assert.ok(said.indexOf('first run') < said.indexOf('second run'));

    const events = await Array.fromAsync(thaw.sdk.sandboxes.events(id));
    assert.deepEqual(
      events.map(({ verb, outcome, actor }) => [verb, outcome, actor]),
      [
        ['resume', 'done', thaw.key.slice(0, 8)],
        ['pause', 'done', thaw.key.slice(0, 8)],
        ['create', 'done', thaw.key.slice(0, 8)],
      ],
    );
    for (const { ms, timings_ms = {} } of events) {
      assert.ok(Object.keys(timings_ms).length > 3);
      assert.ok(Math.max(...Object.values(timings_ms)) <= ms, 'no step is longer than its verb');
    }
    const shown = await thaw.cli(['sandbox', 'logs', id]);
    assert.equal(shown.code, 0, shown.stderr);
    assert.match(shown.stdout, /create .*done/);
    assert.match(shown.stdout, /second run/);
    const json = JSON.parse((await thaw.cli(['sandbox', 'logs', id, '--json', '--events'])).stdout);
    assert.equal(json.events.length, 3);
    assert.equal(json.console, undefined);

    // A VM that dies is told of by nobody who asked for it.
    const { pids } = await thaw.sdk.sandboxes.stats(id);
    process.kill(pids.vmm!, 'SIGKILL');
    await eventually(async () => {
      const [last] = await Array.fromAsync(thaw.sdk.sandboxes.events(id));
      assert.equal(last?.verb, 'settle');
      assert.equal(last?.actor, 'thaw');
      assert.match(last?.message ?? '', /the VM ended/);
    });
    assert.match(await thaw.sdk.sandboxes.logs(id), /second run/, 'its last words are kept');
    await thaw.sdk.sandboxes.delete(id);
    const gone = await thaw.cli(['sandbox', 'logs', id]);
    assert.equal(gone.code, 0, gone.stderr);
    assert.match(gone.stdout, /destroy/);
  });

  it('names a request in the logs of both daemons', async () => {
    const { id } = await thaw.sdk.sandboxes.create();
    const ask = (method: string, where: string, request: string) =>
      fetch(thaw.url + where, { method, headers: { 'X-API-Key': thaw.key, 'X-Request-Id': request } });
    const paused = await ask('POST', `/v1/sandboxes/${id}/pause`, 'e2e-pause');
    assert.equal(paused.headers.get('x-request-id'), 'e2e-pause');
    const refused = await ask('POST', `/v1/sandboxes/${id}/pause`, 'e2e-again');
    assert.equal(refused.status, 409);
    assert.equal(refused.headers.get('x-request-id'), 'e2e-again');
    const chosen = (await ask('GET', '/v1/sandboxes', 'no good: spaces')).headers.get('x-request-id');
    assert.match(chosen ?? '', /^[0-9a-f-]{36}$/);
    await eventually(async () => {
      const lines = thaw
        .log(Number.POSITIVE_INFINITY)
        .split('\n')
        .filter((line) => line.startsWith('{'));
      const about = lines.map((line) => JSON.parse(line)).filter((line) => line.request_id === 'e2e-pause');
      assert.ok(
        about.some(({ msg, status }) => msg === 'request' && status === 200),
        'the control plane',
      );
      assert.ok(
        about.some(({ rpc, sandbox }) => rpc === 'pauseSandbox' && sandbox === id),
        'the host agent',
      );
    });
    await thaw.sdk.sandboxes.delete(id);
  });

  it('has nothing that a guest says in a log of the host', async () => {
    const secret = `secret${Math.random().toString(36).slice(2)}`;
    const { id } = await thaw.sdk.sandboxes.create();
    // The guest puts it together: it must not be found in what was asked for.
    const say = `a=${secret.slice(0, 9)}; b=${secret.slice(9)}; echo "$a$b"`;
    const run = (script: string) => thaw.sdk.sandboxes.exec(id, { cmd: '/bin/sh', args: ['-c', script] });
    assert.equal((await run(say)).stdout, `${secret}\n`);
    await run(`${say} >&2; exit 3`);
    await run(`${say} > /dev/console; ${say} > /dev/kmsg`);
    const stream = thaw.sdk.sandboxes.execStream(id, { cmd: '/bin/sh', args: ['-c', `${say}; exec "$a$b"`] });
    for await (const _ of stream) {
    }
    const { pids } = await thaw.sdk.sandboxes.stats(id);
    process.kill(pids.vmm!, 'SIGKILL');
    await eventually(async () => assert.equal((await thaw.sdk.sandboxes.get(id)).status, 'error'));
    assert.ok(!thaw.log(Number.POSITIVE_INFINITY).includes(secret), 'the logs of the daemons');
    for (const file of await logFiles(thaw.data, thaw.run))
      assert.ok(!(await readFile(file, 'latin1')).includes(secret), file);
    assert.ok((await thaw.sdk.sandboxes.logs(id)).includes(secret), 'its owner can read it');
  });
});

/** Every file of the installation that is text about what happens, but for the sandboxes' own consoles. */
async function logFiles(...folders: string[]): Promise<string[]> {
  const found = await Promise.all(
    folders.map(async (folder) =>
      (await readdir(folder, { recursive: true, withFileTypes: true }))
        .filter((entry) => entry.isFile() && /\.(log|json)$/.test(entry.name) && entry.name !== 'console.log')
        .map((entry) => path.join(entry.parentPath, entry.name)),
    ),
  );
  return found.flat();
}
