/** What is wrong with a request is said in the error shape, and it leaves neither a row nor anything on the host. */
import assert from 'node:assert/strict';
import net from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { SANDBOX_STATUSES } from '@thaw/api';
import { assertNothingStray } from './builds.ts';
import { type Refusal, startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';
import { fullTraces } from './places.ts';
import type { Traces } from './traces.ts';

await ownHost(import.meta.filename);

const SLOTS = 2;
const UNKNOWN = 'sbaaaaaaaaaaaaaaaaaaaa';

/** Method, path, body (a string is sent as it is), status, code. `ID` stands for a running sandbox, `PAUSED` for a paused one. */
type Case = readonly [string, string, unknown, number, string];

const BAD = 'invalid_request';
const MALFORMED: Case[] = [
  '{',
  'not json',
  '{"template":',
  '{"a":1}}',
  '[',
  '"',
  '{"__proto__":{"x":1}}',
].map((body) => ['POST', '/v1/sandboxes', body, 400, BAD]);
const WISHES: Case[] = [
  [],
  'minimal',
  7,
  null,
  { template: 7 },
  { template: '' },
  { template: '../etc/passwd' },
  { template: 'Ünknown' },
  { template: 'a'.repeat(64) },
  { template: '-dash' },
  { vcpus: '2' },
  { vcpus: 0 },
  { vcpus: -1 },
  { vcpus: 1.5 },
  { vcpus: 33 },
  { vcpus: 1e300 },
  { vcpus: null },
  { vcpus: 32 },
  { memory_mb: 0 },
  { memory_mb: 64 },
  { memory_mb: 1_048_576 },
  { memory_mb: 2 ** 53 },
  { memory_mb: '512' },
  { memory_mb: [512] },
  { disk_mb: 1 },
  { disk_mb: 65_537 },
  { disk_mb: -4096 },
  { disk_mb: 1e18 },
  { env: [] },
  { env: { 'A=B': '1' } },
  { env: { '': '1' } },
  { env: { A: 1 } },
  { env: { A: 'x\0y' } },
  { metadata: { a: 1 } },
  { metadata: { a: {} } },
  { metadata: { '': 'x' } },
  { metadata: { a: 'x\0y' } },
  { metadata: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, 'v'])) },
  { nonsense: true },
  { Template: 'minimal' },
].map((wish) => ['POST', '/v1/sandboxes', wish, 400, BAD]);

const CREATES: Case[] = [
  ...MALFORMED,
  ...WISHES,
  ['POST', '/v1/sandboxes', { template: 'unknown' }, 404, 'not_found'],
  ['POST', '/v1/sandboxes', { template: 'tplaaaaaaaaaaaaaaaaaaaa' }, 404, 'not_found'],
  ['POST', '/v1/sandboxes', { timeout_sec: -1 }, 400, BAD],
  ['POST', '/v1/sandboxes', { on_timeout: 'explode' }, 400, BAD],
  ['POST', '/v1/sandboxes', { auto_resume: 'yes' }, 400, BAD],
  ['POST', '/v1/sandboxes', { network: { internet: true, allow_out: ['example.org'] } }, 400, BAD],
  ['POST', '/v1/sandboxes', { network: { deny_out: ['example.org'] } }, 400, BAD],
  ['POST', '/v1/sandboxes', { network: { allow_out: ['10.0.0.0/8'] } }, 400, BAD],
  ['POST', '/v1/sandboxes', `{"metadata":{"a":"${'x'.repeat(2 ** 20)}"}}`, 413, 'too_large'],
  ['PUT', '/v1/sandboxes', {}, 405, BAD],
  ['POST', '/v1/nonsense', {}, 404, 'not_found'],
  ['GET', '/v1/sandboxes?limit=0', undefined, 400, BAD],
  ['GET', '/v1/sandboxes?limit=ten', undefined, 400, BAD],
  ['GET', '/v1/sandboxes?status=sleeping', undefined, 400, BAD],
  ['GET', '/v1/sandboxes?next_token=garbage', undefined, 400, BAD],
  ['GET', '/v1/sandboxes?nonsense=1', undefined, 400, BAD],
];

const IDS: Case[] = [
  UNKNOWN,
  'x',
  'sb',
  'SBAAAAAAAAAAAAAAAAAAAA',
  '..%2F..%2Fetc',
  '%00',
  "';drop table sandboxes",
].flatMap((id) => {
  const at = `/v1/sandboxes/${id}`;
  return [
    ['GET', at, undefined, 404, 'not_found'],
    ['DELETE', at, undefined, 404, 'not_found'],
    ['POST', `${at}/pause`, undefined, 404, 'not_found'],
    ['POST', `${at}/resume`, undefined, 404, 'not_found'],
    ['GET', `${at}/stats`, undefined, 404, 'not_found'],
    ['POST', `${at}/exec`, { cmd: 'true' }, 404, 'not_found'],
    ['POST', `${at}/files/read`, { path: '/etc/hostname' }, 404, 'not_found'],
  ] as const satisfies Case[];
});

const EXECS: Case[] = [
  undefined,
  {},
  { cmd: '' },
  { cmd: 7 },
  { cmd: ['ls'] },
  { cmd: 'a\0b' },
  { cmd: 'ls', args: 'x' },
  { cmd: 'ls', args: [1] },
  { cmd: 'ls', args: Array.from({ length: 4097 }, () => 'x') },
  { cmd: 'ls', timeout_sec: -1 },
  { cmd: 'ls', timeout_sec: 1e9 },
  { cmd: 'ls', env: { 'x y': '1' } },
  { cmd: 'ls', stdin: 5 },
  { cmd: 'ls', stdin: 'x', stdin_encoding: 'latin1' },
  { cmd: 'ls', nonsense: 1 },
].map((wish) => ['POST', '/v1/sandboxes/ID/exec', wish, 400, BAD]);

const GUEST: Case[] = [
  ...EXECS,
  ['POST', '/v1/sandboxes/ID/exec', '{"cmd"', 400, BAD],
  ['POST', '/v1/sandboxes/ID/files/read', {}, 400, BAD],
  ['POST', '/v1/sandboxes/ID/files/read', { path: '' }, 400, BAD],
  ['POST', '/v1/sandboxes/ID/files/read', { path: 5 }, 400, BAD],
  ['POST', '/v1/sandboxes/ID/files/read', { path: 'a\0b' }, 400, BAD],
  ['POST', '/v1/sandboxes/ID/files/read', { path: '/no/such/file' }, 404, 'not_found'],
  ['POST', '/v1/sandboxes/ID/files/stream/read', { path: '/no/such/file' }, 404, 'not_found'],
  ['POST', '/v1/sandboxes/ID/files/read', { path: '/root' }, 400, BAD],
  ['POST', '/v1/sandboxes/ID/files/write', { path: '/x' }, 400, BAD],
  ['POST', '/v1/sandboxes/ID/pause', { nonsense: 1 }, 400, BAD],
  ['POST', '/v1/sandboxes/ID/resume', undefined, 409, 'invalid_state'],
  ['PATCH', '/v1/sandboxes/ID', {}, 400, BAD],
  ['PATCH', '/v1/sandboxes/ID', { status: 'paused' }, 400, BAD],
  ['POST', '/v1/sandboxes/PAUSED/resume', { memory: 1 }, 400, BAD],
  ['POST', '/v1/sandboxes/PAUSED/pause', undefined, 409, 'invalid_state'],
  ['POST', '/v1/sandboxes/PAUSED/exec', { cmd: 'true' }, 409, 'invalid_state'],
  ['POST', '/v1/sandboxes/PAUSED/files/read', { path: '/etc/hostname' }, 409, 'invalid_state'],
  ['GET', '/v1/sandboxes/PAUSED/stats', undefined, 409, 'invalid_state'],
];

const SNAPSHOTS: Case[] = [
  ['POST', '/v1/snapshots', undefined, 400, BAD],
  ['POST', '/v1/snapshots', {}, 400, BAD],
  ['POST', '/v1/snapshots', { sandbox_id: 5 }, 400, BAD],
  ['POST', '/v1/snapshots', { sandbox_id: 'x' }, 400, BAD],
  ['POST', '/v1/snapshots', { sandbox_id: UNKNOWN, name: 'fine' }, 404, 'not_found'],
  ['POST', '/v1/snapshots', { sandbox_id: 'ID', name: '../x' }, 400, BAD],
  ['POST', '/v1/snapshots', { sandbox_id: 'ID', name: 'a b' }, 400, BAD],
  ['POST', '/v1/snapshots', { sandbox_id: 'ID', name: '' }, 400, BAD],
  ['POST', '/v1/snapshots', { sandbox_id: 'ID', name: 'x'.repeat(64) }, 400, BAD],
  ['POST', '/v1/snapshots', { sandbox_id: 'ID', name: 'tplaaaaaaaaaaaaaaaaaaaa' }, 400, BAD],
  ['POST', '/v1/snapshots', { sandbox_id: 'ID', name: 'minimal' }, 409, 'already_exists'],
  ['POST', '/v1/snapshots?overwrite=maybe', { sandbox_id: 'ID', name: 'fine' }, 400, BAD],
  ['GET', '/v1/snapshots?type=other', undefined, 400, BAD],
  ['DELETE', '/v1/snapshots/unknown', undefined, 404, 'not_found'],
  ['DELETE', '/v1/snapshots/..%2Fminimal', undefined, 404, 'not_found'],
];

describe('a bad request', () => {
  let thaw: TestThaw;
  let quiet: Traces;
  let rows: string[];
  const ids = { ID: '', PAUSED: '' };
  before(async () => {
    thaw = await startThaw({ env: { THAW_SLOT_POOL: String(SLOTS) } });
    ids.PAUSED = (await thaw.sdk.sandboxes.create({ auto_resume: false })).id;
    ids.ID = (await thaw.sdk.sandboxes.create()).id;
    await thaw.sdk.sandboxes.pause(ids.PAUSED);
    quiet = await fullTraces(thaw, SLOTS, 1);
    rows = await allRows();
  });
  after(() => thaw?.stop());

  async function allRows(): Promise<string[]> {
    const sandboxes = await Array.fromAsync(thaw.sdk.sandboxes.list({ status: [...SANDBOX_STATUSES] }));
    const templates = await Array.fromAsync(thaw.sdk.snapshots.list());
    return [...sandboxes.map(({ id, status }) => `${id} ${status}`), ...templates.map(({ name }) => name)];
  }

  function isRefusal(status: number, body: Refusal, expected: readonly [number, string], what: string): void {
    assert.deepEqual(
      [status, body?.error?.code],
      expected,
      `${what}: ${JSON.stringify(body)?.slice(0, 300)}`,
    );
    assert.deepEqual(Object.keys(body), ['error'], what);
    assert.deepEqual(Object.keys(body.error), ['code', 'message'], what);
    assert.ok(typeof body.error.message === 'string' && body.error.message.length > 3, what);
    // Nothing of the host's inside.
    assert.doesNotMatch(
      body.error.message,
      /\/tmp\/tw-|node_modules|at .*\.ts|ECONN|ENOENT|10\.1[12]\./,
      what,
    );
  }

  for (const [name, cases] of Object.entries({ CREATES, IDS, GUEST, SNAPSHOTS })) {
    it(`about ${name.toLowerCase()} is refused in the error shape and leaves nothing`, async () => {
      for (const [method, where, body, ...expected] of cases) {
        const put = (value: string) => value.replace('PAUSED', ids.PAUSED).replace(/\bID\b/, ids.ID);
        const filled =
          body !== null && typeof body === 'object' && !Array.isArray(body)
            ? JSON.parse(put(JSON.stringify(body)))
            : body;
        const answer = await thaw.api(method, put(where), filled);
        const what = `${method} ${where} ${JSON.stringify(body)?.slice(0, 80)}`;
        isRefusal(answer.status, answer.body, expected, what);
      }
      assert.deepEqual(await allRows(), rows);
      const same = (now: Traces) => JSON.stringify(now) === JSON.stringify(quiet);
      assert.deepEqual(await thaw.settledTraces(same), quiet);
      await assertNothingStray(thaw);
      assert.equal(await thaw.sh(ids.ID, 'echo fine'), 'fine\n');
    });
  }

  it('without a valid key is refused', async () => {
    for (const headers of [{}, { 'X-API-Key': 'wrong' }, { Authorization: 'Bearer e2b_0' }] as Record<
      string,
      string
    >[]) {
      const response = await fetch(`${thaw.url}/v1/sandboxes`, { method: 'POST', headers, body: '{}' });
      isRefusal(response.status, (await response.json()) as Refusal, [401, 'unauthenticated'], 'no key');
    }
    assert.deepEqual(await allRows(), rows);
  });

  it('that is no HTTP is refused in the error shape', async () => {
    const { hostname, port } = new URL(thaw.url);
    const socket = net.connect(Number(port), hostname);
    socket.end('THIS IS NOT HTTP\r\n\r\n');
    const [head = '', body = ''] = (await text(socket)).split('\r\n\r\n');
    const status = Number(head.split(' ')[1]);
    isRefusal(status, JSON.parse(body) as Refusal, [400, BAD], 'no HTTP');
  });
});
