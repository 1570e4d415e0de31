/** The API under load: what GET, exec and create take at 1, 8 and 32 clients, beside asking the guest agent itself. */
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import type { Sandbox } from '@thaw/api';
import type { Thaw } from '@thaw/sdk';
import { collect } from '../packages/host-agent/src/guest/exec.ts';
import { Guest } from '../packages/host-agent/src/guest/guest.ts';
import { type Figure, figure, quantile } from './figure.ts';

const CLIENTS = [1, 8, 32];
/** Each measurement ends with the first of the two. */
const CALLS_MAX = 1000;
const MEASURE_MS = 2500;
/** What the API may add to a call of the guest agent, of the median, with one client. */
const ADDED_MS = 2;
const TEMPLATE = 'bench-api';
const MEMORY_MB = 128;

export interface ApiOptions {
  thaw: Thaw;
  url: string;
  key: string;
  /** Thaw's data folder: there is the token that the guest agent asks for. */
  data: string;
  progress: (text: string) => void;
}

interface Load {
  /** Milliseconds of each call. */
  calls: number[];
  perSecond: number;
}

export async function api(options: ApiOptions): Promise<Figure[]> {
  const { thaw, progress } = options;
  const sandbox = await thaw.sandboxes.create({ memory_mb: MEMORY_MB });
  using undo = new DisposableStack();
  const guest = new Guest(sandbox.host_ip!, await tokenOf(options.data, sandbox));
  undo.defer(() => guest.close());
  const agent = new http.Agent({ keepAlive: true, maxSockets: Math.max(...CLIENTS) });
  undo.defer(() => agent.destroy());

  const at = `/v1/sandboxes/${sandbox.id}`;
  const get = () => ask(options, agent, 'GET', at);
  const exec = () => ask(options, agent, 'POST', `${at}/exec`, { cmd: '/bin/true' });
  const direct = async () => {
    const program = { cmd: '/bin/true', args: [], cwd: '', env: {}, user: 'root', timeoutMs: 30_000 };
    const never = new AbortController().signal;
    await collect(guest, { ...program, stdin: false }, new Uint8Array(), never);
  };
  for (const call of [get, exec, direct]) await load(call, 1, 50);

  const figures: Figure[] = [];
  for (const clients of CLIENTS) {
    progress(`GET and exec with ${clients} ${clients === 1 ? 'client' : 'clients'}`);
    figures.push(...rows('GET a sandbox', clients, await load(get, clients)));
    // In turns, so that both meet the same machine.
    const halves: [Load, Load][] = [];
    for (let half = 0; half < 2; half++)
      halves.push([await load(exec, clients), await load(direct, clients)]);
    const [own, other] = [0, 1].map((side) => joined(halves.map((pair) => pair[side]!)));
    figures.push(...rows('exec (or the guest agent itself)', clients, own!, other!));
    if (clients > 1) continue;
    const added = quantile(own!.calls, 0.5) - quantile(other!.calls, 0.5);
    figures.push(figure('added by the API to an exec, p50', { unit: 'ms', values: [added], bar: ADDED_MS }));
  }
  figures.push(...(await creates(options, agent, sandbox)));
  await thaw.sandboxes.delete(sandbox.id);
  return figures;
}

/** One sandbox for each client at once, spawned of a template. */
async function creates(
  { thaw, progress, ...options }: ApiOptions,
  agent: http.Agent,
  source: Sandbox,
): Promise<Figure[]> {
  await thaw.snapshots.create(source.id, { name: TEMPLATE });
  const figures: Figure[] = [];
  for (const clients of CLIENTS) {
    progress(`creating ${clients} at once`);
    const made: string[] = [];
    const create = async () => {
      const answer = await ask(options, agent, 'POST', '/v1/sandboxes', { template: TEMPLATE });
      made.push((JSON.parse(answer) as Sandbox).id);
    };
    figures.push(...rows('create of a template', clients, await load(create, clients, Math.max(clients, 4))));
    for (const id of made) await thaw.sandboxes.delete(id);
  }
  await thaw.snapshots.delete(TEMPLATE);
  return figures;
}

/** Clients that each ask again as soon as they are answered. */
async function load(call: () => Promise<unknown>, clients: number, callsMax = CALLS_MAX): Promise<Load> {
  const calls: number[] = [];
  let begun = 0;
  const started = performance.now();
  const client = async () => {
    while (begun < callsMax && performance.now() - started < MEASURE_MS) {
      begun += 1;
      const asked = performance.now();
      await call();
      calls.push(performance.now() - asked);
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return { calls, perSecond: (calls.length * 1000) / (performance.now() - started) };
}

function joined(loads: Load[]): Load {
  const perSecond = loads.reduce((sum, load) => sum + load.perSecond, 0) / loads.length;
  return { calls: loads.flatMap(({ calls }) => calls), perSecond };
}

function rows(what: string, clients: number, own: Load, other?: Load): Figure[] {
  const row = (name: string, unit: string, of: (load: Load) => number) =>
    figure(`${what}, ${clients} at once: ${name}`, {
      unit,
      values: [of(own)],
      ...(other && { baseline: [of(other)] }),
    });
  return [
    row('p50', 'ms', ({ calls }) => quantile(calls, 0.5)),
    row('p99', 'ms', ({ calls }) => quantile(calls, 0.99)),
    row('rate', '/s', ({ perSecond }) => perSecond),
  ];
}

async function ask(
  { url, key }: Pick<ApiOptions, 'url' | 'key'>,
  agent: http.Agent,
  method: string,
  where: string,
  body?: unknown,
): Promise<string> {
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
  const request = http.request(url + where, {
    method,
    agent,
    headers: { 'X-API-Key': key, ...(payload && { 'Content-Length': Buffer.byteLength(payload) }) },
  });
  request.on('error', reject);
  request.on('response', resolve);
  request.end(payload);
  const response = await promise;
  const answer = await text(response);
  if ((response.statusCode ?? 0) >= 300)
    throw new Error(`${method} ${where}: ${response.statusCode} ${answer}`);
  return answer;
}

async function tokenOf(data: string, { id }: Sandbox): Promise<string> {
  const record = await readFile(path.join(data, 'sandboxes', id, 'sandbox.json'), 'utf8');
  return (JSON.parse(record) as { accessToken: string }).accessToken;
}
