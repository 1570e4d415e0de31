import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ThawError } from '@thaw/api';
import { type Answer, TestPlane, until } from '../../testing.ts';

const DOMAIN = 'sbx.localhost:3443';
const UNKNOWN = 'sb00000000000000000000';
const at = (time: string): number => new Date(time).getTime();

describe('sandboxes of the E2B API', () => {
  let test: TestPlane;
  before(async () => {
    test = await TestPlane.start({ domain: DOMAIN });
  });
  after(() => test[Symbol.asyncDispose]());

  const create = async (body: object = {}, path = '/v2/sandboxes'): Promise<Answer['body']> => {
    const made = await test.ask('POST', path, { templateID: 'base', ...body });
    assert.equal(made.status, 201, JSON.stringify(made.body));
    return made.body;
  };
  const detail = async (id: string): Promise<Answer['body']> => {
    const found = await test.ask('GET', `/sandboxes/${id}`);
    assert.equal(found.status, 200, JSON.stringify(found.body));
    return found.body;
  };
  const refused = async (status: number, message: RegExp, method: string, path: string, body?: unknown) => {
    const answer = await test.ask(method, path, body);
    assert.deepEqual(
      [answer.status, answer.body.code],
      [status, status],
      `${path} ${JSON.stringify(answer.body)}`,
    );
    assert.match(answer.body.message, message);
    return answer;
  };

  it('are created with a token, an absolute end and the default user', async () => {
    const now = Date.now();
    const made = await create({ metadata: { app: 'a' }, envVars: { KEY: 'value' } });
    const { accessToken, sandboxId } = test.agent.sandboxes.get(made.sandboxID)!;
    assert.deepEqual(made, {
      sandboxID: sandboxId,
      templateID: 'base',
      clientID: '00000000',
      envdVersion: '0.6.13',
      alias: 'base',
      envdAccessToken: accessToken,
      trafficAccessToken: null,
      domain: DOMAIN,
    });
    assert.match(sandboxId, /^[a-z0-9]+$/);
    assert.deepEqual(test.agent.lastCreate?.env, { KEY: 'value' });
    assert.deepEqual(
      [
        test.agent.lastCreate?.defaultUser,
        test.agent.lastCreate?.defaultWorkdir,
        test.agent.lastCreate?.open,
      ],
      ['user', '/home/user', false],
    );
    const seen = await detail(sandboxId);
    const { startedAt, endAt, ...rest } = seen;
    assert.deepEqual(rest, {
      sandboxID: sandboxId,
      templateID: 'base',
      clientID: '00000000',
      envdVersion: '0.6.13',
      alias: 'base',
      cpuCount: 1,
      memoryMB: 512,
      diskSizeMB: 4096,
      metadata: { app: 'a' },
      state: 'running',
      envdAccessToken: accessToken,
      domain: DOMAIN,
      allowInternetAccess: null,
      network: { allowPublicTraffic: true },
      lifecycle: { onTimeout: 'kill', autoResume: false },
    });
    assert.equal(at(endAt) - at(startedAt), 300_000);
    assert.ok(at(startedAt) >= now && at(startedAt) <= Date.now());
  });

  it('are open without `secure` in the first version, and end after 15 s there', async () => {
    const open = await create({}, '/sandboxes');
    assert.equal('envdAccessToken' in open, false);
    assert.equal(test.agent.lastCreate?.open, true);
    const { startedAt, endAt } = await detail(open.sandboxID);
    assert.equal(at(endAt) - at(startedAt), 15_000);
    const secure = await create({ secure: true, timeout: 60 }, '/sandboxes');
    assert.equal(typeof secure.envdAccessToken, 'string');
  });

  it('take what every version of the SDKs sends, in chunks too', async () => {
    await create({ metadata: {}, envVars: {} });
    await create({ timeout: 300, secure: true, allow_internet_access: true, mcp: null }, '/sandboxes');
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(new TextEncoder().encode('{"templateID":'));
        controller.enqueue(new TextEncoder().encode('"base","unknown":1}'));
        controller.close();
      },
    });
    const headers = { 'X-API-Key': test.key, 'Content-Type': 'application/json' };
    const chunked = await fetch(`${test.url}/v2/sandboxes`, {
      method: 'POST',
      headers,
      body,
      duplex: 'half',
    } as RequestInit);
    assert.equal(chunked.status, 201);
    const named = await create({ templateID: ' Base:default ' });
    assert.equal(named.templateID, 'base');
  });

  it('refuse what makes no sense, with a code and a message', async () => {
    const wrong: [RegExp, object][] = [
      [/templateID/, { templateID: 7 }],
      [/name of a template/, { templateID: 'a b' }],
      [/timeout/, { timeout: 0 }],
      [/timeout/, { timeout: -1 }],
      [/timeout/, { timeout: 1e9 }],
      [/autoPauseMemory/, { autoPauseMemory: false }],
      [/autoResume/, { autoPause: true, autoPauseMemory: false, autoResume: { enabled: true } }],
      [/iam/, { iam: { tokens: { a: { audience: 'x' } } } }],
      [/volumeMounts/, { volumeMounts: [{ name: 'v', path: '/v' }] }],
      [/denyOut: 'example.com'/, { network: { denyOut: ['example.com'] } }],
      [/0\.0\.0\.0\/0/, { network: { allowOut: ['example.com'] } }],
      [/allowOut: '10/, { network: { allowOut: ['10.0.0.1'] } }],
      [/egressProxy/, { network: { egressProxy: { address: 'a:1' } } }],
      [/rules/, { network: { rules: { 'a.example': [] } } }],
      [/maskRequestHost/, { network: { maskRequestHost: 'é' } }],
      [/httpsPorts/, { network: { httpsPorts: [49983] } }],
      [/envVars/, { envVars: { '1': 'x' } }],
    ];
    for (const [message, body] of wrong)
      await refused(400, message, 'POST', '/v2/sandboxes', { templateID: 'base', ...body });
    await refused(400, /templateID/, 'POST', '/v2/sandboxes', {});
    await refused(400, /secure/, 'POST', '/sandboxes', {
      templateID: 'base',
      network: { allowPublicTraffic: false },
    });
    await refused(404, /^template 'nothing' not found$/, 'POST', '/v2/sandboxes', { templateID: 'nothing' });
    await refused(400, /JSON/, 'POST', '/v2/sandboxes', '{');
  });

  it('say whether a failed create may be tried again', async () => {
    test.agent.failNext('createSandbox', new ThawError('exhausted', 'no slot is free'));
    const full = await refused(429, /no slot/, 'POST', '/v2/sandboxes', { templateID: 'base' });
    assert.equal(full.headers.get('should-retry'), 'false');
    test.agent.failNext('createSandbox', new ThawError('unavailable', 'a moment'));
    const busy = await refused(503, /a moment/, 'POST', '/v2/sandboxes', { templateID: 'base' });
    assert.equal(busy.headers.get('should-retry'), null);
  });

  it('have a network policy, and a token for private ports', async () => {
    const made = await create({
      allow_internet_access: false,
      network: {
        allowOut: ['203.0.113.7', '198.51.100.9/24', '*.Example.com'],
        denyOut: ['0.0.0.0/0'],
        dnsServers: ['203.0.113.53'],
        allowPublicTraffic: false,
        // biome-ignore lint/suspicious/noTemplateCurlyInString: the port's place
        maskRequestHost: 'localhost:${PORT}',
        httpsPorts: [8443],
      },
    });
    assert.match(made.trafficAccessToken, /^[0-9a-f]{48}$/);
    assert.deepEqual(
      { ...test.agent.lastCreate?.network, $typeName: undefined },
      {
        ...{ $typeName: undefined, internet: false, allowDomains: [], dnsServers: [] },
        allowOut: ['203.0.113.7', '198.51.100.0/24'],
        denyOut: ['0.0.0.0/0'],
        ...{ allowDomains: ['*.example.com'], dnsServers: ['203.0.113.53'] },
      },
    );
    const { network, allowInternetAccess } = await detail(made.sandboxID);
    assert.equal(allowInternetAccess, false);
    assert.deepEqual(network, {
      allowOut: ['203.0.113.7', '198.51.100.0/24', '*.example.com'],
      denyOut: ['0.0.0.0/0'],
      dnsServers: ['203.0.113.53'],
      allowPublicTraffic: false,
      // biome-ignore lint/suspicious/noTemplateCurlyInString: the port's place
      maskRequestHost: 'localhost:${PORT}',
      httpsPorts: [8443],
    });
    const again = await test.ask('POST', `/v2/sandboxes/${made.sandboxID}/connect`, {});
    assert.deepEqual(again.body, made);
  });

  it('are made once for an idempotency key', async () => {
    const post = (body: object, key: string) =>
      test.ask('POST', '/v2/sandboxes', { templateID: 'base', ...body }, { 'Idempotency-Key': key });
    const [one, two] = await Promise.all([post({}, 'key-1'), post({}, 'key-1')]);
    const three = await post({}, 'key-1');
    assert.deepEqual([one.status, two.status, three.status], [201, 201, 201]);
    assert.deepEqual(two.body, one.body);
    assert.deepEqual(three.body, one.body);
    assert.equal((await post({ timeout: 9 }, 'key-1')).status, 409);
    assert.equal((await post({}, 'KEY')).status, 400);
    test.agent.failNext('createSandbox', new ThawError('unavailable', 'a moment'));
    assert.equal((await post({}, 'key-2')).status, 503);
    assert.equal((await post({}, 'key-2')).status, 201);
    await test.ask('DELETE', `/sandboxes/${one.body.sandboxID}`);
    assert.equal((await post({}, 'key-1')).status, 409);
  });

  it('pause, are resumed by connect as what they were, and are killed', async () => {
    const made = await create({ timeout: 60 });
    const path = `/sandboxes/${made.sandboxID}`;
    const before = await detail(made.sandboxID);
    const paused = await test.ask('POST', `${path}/pause`, {});
    assert.deepEqual([paused.status, paused.body], [204, '']);
    assert.deepEqual([test.agent.lastPause?.diskOnly, test.agent.lastPause?.healthy], [false, false]);
    const asleep = await detail(made.sandboxID);
    assert.deepEqual([asleep.state, asleep.pauseMode], ['paused', 'full']);
    assert.ok(Math.abs(at(asleep.endAt) - Date.now()) < 5000);
    await refused(409, /is paused/, 'POST', `${path}/pause`, { memory: true });
    await refused(404, /./, 'POST', `${path}/timeout`, { timeout: 5 });

    const resumed = await test.ask('POST', `/v2${path}/connect`, {});
    assert.equal(resumed.status, 201);
    assert.deepEqual(resumed.body, made);
    assert.equal(test.agent.lastResume?.cold, false);
    const awake = await detail(made.sandboxID);
    assert.ok(at(awake.startedAt) > at(before.startedAt));
    assert.equal(Math.round((at(awake.endAt) - at(awake.startedAt)) / 1000), 300);
    assert.equal('pauseMode' in awake, false);
    await refused(409, /is running/, 'POST', `${path}/resume`, {});

    assert.equal((await test.ask('DELETE', path)).status, 204);
    for (const [method, verb] of [
      ['DELETE', ''],
      ['GET', ''],
      ['POST', '/pause'],
      ['POST', '/connect'],
      ['POST', '/resume'],
      ['POST', '/timeout'],
      ['POST', '/refreshes'],
    ] as const) {
      for (const id of [made.sandboxID, UNKNOWN, 'no-id'])
        await refused(
          404,
          /./,
          method,
          `/sandboxes/${id}${verb}`,
          verb === '/timeout' ? { timeout: 5 } : undefined,
        );
    }
  });

  it('keep their disk alone when they are paused without memory', async () => {
    const made = await create();
    const path = `/sandboxes/${made.sandboxID}`;
    assert.equal(
      (await test.ask('POST', `${path}/pause`, { memory: false, requireHealthyGuest: true })).status,
      204,
    );
    assert.deepEqual([test.agent.lastPause?.diskOnly, test.agent.lastPause?.healthy], [true, true]);
    assert.equal((await detail(made.sandboxID)).pauseMode, 'filesystem');
    // Nothing wakes it unasked, whatever may wake it.
    await test.ask('PATCH', `/v1${path}`, { auto_resume: true });
    assert.equal((await test.ask('POST', `/v1${path}/exec`, { cmd: 'true' })).status, 409);
    const resumed = await test.ask('POST', `${path}/connect`, { timeout: 30 });
    assert.deepEqual([resumed.status, resumed.body], [201, made]);
    const { startedAt, endAt } = await detail(made.sandboxID);
    assert.equal(Math.round((at(endAt) - at(startedAt)) / 1000), 30);
  });

  it('boot when a client asks for that', async () => {
    const { sandboxID } = await create();
    await test.ask('POST', `/sandboxes/${sandboxID}/pause`);
    const resumed = await test.ask('POST', `/v2/sandboxes/${sandboxID}/connect`, { memory: false });
    assert.equal(resumed.status, 201);
    assert.equal(test.agent.lastResume?.cold, true);
    const running = await test.ask('POST', `/v2/sandboxes/${sandboxID}/connect`, { memory: false });
    assert.equal(running.status, 200);
  });

  it('get more time by connect and refreshes, and any time by timeout', async () => {
    const { sandboxID } = await create({ timeout: 100 });
    const left = async () => Math.round((at((await detail(sandboxID)).endAt) - Date.now()) / 1000);
    const connect = (body?: object) => test.ask('POST', `/v2/sandboxes/${sandboxID}/connect`, body);
    assert.equal((await connect({ timeout: 10 })).status, 200);
    assert.equal(await left(), 100);
    assert.equal((await connect({ timeout: 200 })).status, 200);
    assert.equal(await left(), 200);
    assert.equal((await connect()).status, 200);
    assert.equal(await left(), 300);
    const timeout = await test.ask('POST', `/sandboxes/${sandboxID}/timeout`, { timeout: 50 });
    assert.deepEqual([timeout.status, timeout.body], [204, '']);
    assert.equal(await left(), 50);
    assert.equal((await test.ask('POST', `/sandboxes/${sandboxID}/refreshes`, { duration: 20 })).status, 204);
    assert.equal(await left(), 50);
    assert.equal((await test.ask('POST', `/sandboxes/${sandboxID}/refreshes`, { duration: 70 })).status, 204);
    assert.equal(await left(), 70);
    await refused(400, /timeout/, 'POST', `/sandboxes/${sandboxID}/timeout`, {});
    await refused(400, /timeout/, 'POST', `/v2/sandboxes/${sandboxID}/connect`, { timeout: 0 });
    assert.equal((await test.ask('POST', `/sandboxes/${sandboxID}/timeout`, { timeout: -3 })).status, 204);
    await refused(404, /./, 'GET', `/sandboxes/${sandboxID}`);
  });

  it('pause at the end of their time, as they were told', async () => {
    const full = await create({ autoPause: true });
    await test.ask('POST', `/sandboxes/${full.sandboxID}/timeout`, { timeout: 0 });
    assert.equal((await detail(full.sandboxID)).pauseMode, 'full');
    const disk = await create({ autoPause: true, autoPauseMemory: false });
    await test.ask('POST', `/sandboxes/${disk.sandboxID}/timeout`, { timeout: 0 });
    const { state, pauseMode, lifecycle } = await detail(disk.sandboxID);
    assert.deepEqual(
      [state, pauseMode, lifecycle],
      ['paused', 'filesystem', { onTimeout: 'pause', autoResume: false }],
    );
  });

  it('that traffic may wake get the time of their create again', async () => {
    const made = await create({ timeout: 1000, autoPause: true, autoResume: { enabled: true } });
    await test.ask('POST', `/sandboxes/${made.sandboxID}/pause`);
    assert.equal(
      (await test.ask('POST', `/v1/sandboxes/${made.sandboxID}/exec`, { cmd: 'true' })).status,
      200,
    );
    const { startedAt, endAt, lifecycle } = await detail(made.sandboxID);
    assert.deepEqual(lifecycle, { onTimeout: 'pause', autoResume: true });
    assert.equal(Math.round((at(endAt) - at(startedAt)) / 1000), 1000);
    const off = await create({ autoPause: true });
    await test.ask('POST', `/sandboxes/${off.sandboxID}/pause`);
    assert.equal(
      (await test.ask('POST', `/v1/sandboxes/${off.sandboxID}/exec`, { cmd: 'true' })).status,
      409,
    );
  });

  it('of /v1 keep their own clock until a client names a time', async () => {
    const id = await test.createSandbox({ timeout_sec: 77 });
    assert.equal((await test.ask('POST', `/v2/sandboxes/${id}/connect`, {})).status, 200);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.timeout_sec, 77);
    await test.ask('POST', `/sandboxes/${id}/pause`);
    assert.equal((await test.ask('POST', `/v2/sandboxes/${id}/connect`, {})).status, 201);
    assert.equal((await test.ask('GET', `/v1/sandboxes/${id}`)).body.timeout_sec, 77);
    await test.ask('POST', `/sandboxes/${id}/timeout`, { timeout: 20 });
    const { body } = await test.ask('GET', `/v1/sandboxes/${id}`);
    assert.equal(body.timeout_sec, 0);
    assert.equal(Math.round((at(body.end_at) - Date.now()) / 1000), 20);
    // What is made of it has an end too.
    const forked = await test.ask('POST', `/v1/sandboxes/${id}/fork`, {});
    assert.equal(Math.round((at(forked.body.forks[0].sandbox.end_at) - Date.now()) / 1000), 20);
  });

  it('wait for the verb under way', async () => {
    const { sandboxID } = await create();
    const release = test.agent.hold('pauseSandbox');
    const pausing = test.ask('POST', `/sandboxes/${sandboxID}/pause`);
    await until(() => test.agent.calls.at(-1) === 'pauseSandbox');
    assert.equal((await detail(sandboxID)).state, 'paused');
    const connecting = [1, 2, 3].map(() => test.ask('POST', `/v2/sandboxes/${sandboxID}/connect`, {}));
    const resumes = test.agent.count('resumeSandbox');
    release();
    assert.equal((await pausing).status, 204);
    const statuses = (await Promise.all(connecting)).map(({ status }) => status);
    assert.ok(
      statuses.every((status) => status === 200 || status === 201),
      String(statuses),
    );
    assert.equal(test.agent.count('resumeSandbox'), resumes + 1);

    const freed = test.agent.hold('createSnapshot');
    const snapshot = test.ask('POST', '/v1/snapshots', { sandbox_id: sandboxID });
    await until(() => test.agent.calls.at(-1) === 'createSnapshot');
    const paused = test.ask('POST', `/sandboxes/${sandboxID}/pause`, {});
    assert.equal((await test.ask('POST', `/v2/sandboxes/${sandboxID}/connect`, {})).status, 200);
    freed();
    assert.equal((await snapshot).status, 201);
    assert.equal((await paused).status, 204);
  });

  it('tell a guest that hung when it was paused from other failures', async () => {
    const { sandboxID } = await create();
    await test.ask('POST', `/sandboxes/${sandboxID}/pause`);
    const path = `/v2/sandboxes/${sandboxID}/connect`;
    test.agent.failNext('resumeSandbox', new ThawError('timeout', 'the guest did not answer in time'));
    await refused(504, /in time/, 'POST', path);
    test.agent.sandboxes.get(sandboxID)!.build!.guestUnresponsive = true;
    test.agent.failNext('resumeSandbox', new ThawError('timeout', 'the guest did not answer in time'));
    const hung = await refused(409, /"memory": false/, 'POST', path);
    assert.equal(hung.body.error_code, 'sandbox_snapshot_guest_agent_unresponsive');
    assert.equal((await test.ask('POST', path, { memory: false })).status, 201);
  });
});
