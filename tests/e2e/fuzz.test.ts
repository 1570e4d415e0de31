/**
 * Names and ids that mean harm, in every field of every route and of every call between the daemons: refused as 400 or
 * 404, or taken as the text that they are. Never an error of ours, never a shell, never outside a directory.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { HostAgentService } from '@thaw/api/rpc';
import { WebSocket } from 'ws';
import { parse } from 'yaml';
import { startThaw, type TestThaw } from './harness.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

/** Whatever a shell ran or a path escaped to would leave this on the host. */
const CANARY = '/tmp/thaw-fuzz-canary';
const HARMFUL = [
  '',
  ' ',
  '.',
  '..',
  '../',
  `../../../../../../../..${CANARY}`,
  CANARY,
  '%2e%2e%2f%2e%2e%2f',
  `$(touch ${CANARY})`,
  `\`touch ${CANARY}\``,
  `; touch ${CANARY} #`,
  `' || touch ${CANARY} #`,
  `a\ntouch ${CANARY}`,
  "'; drop table sandboxes; --",
  '-rf',
  '--help',
  'x'.repeat(10_000),
  'ünïcödé ☃ 𝕏',
  '\u202egnp.exe',
  'a\0b',
  '\ud800',
  '__proto__',
  'constructor',
  '{{7*7}}',
];
/** What is left out where it is a wish that would be granted: the whole home, and the default template. */
function isWish(call: string, field: string, value: string): boolean {
  if (/^(removeFile|moveFile)$/.test(call)) return ['.', '..', '../'].includes(value);
  return call === 'createSandbox' && field === 'template' && value === '';
}

const UNKNOWN = 'sbaaaaaaaaaaaaaaaaaaaa';
const GROUP = 12;

interface Schema {
  $ref?: string;
  type?: string | string[];
  properties?: Record<string, Schema>;
  items?: Schema;
  anyOf?: Schema[];
  additionalProperties?: Schema | boolean;
}

interface Operation {
  operationId: string;
  parameters?: { name: string; in: 'path' | 'query' }[];
  requestBody?: { content: Record<string, { schema: Schema }> };
}

interface Description {
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, Schema> };
}

/** Fields that have to be there, with values that do no more than they must. */
const VALID: Record<string, Record<string, unknown>> = {
  // Nothing is created: what is not fuzzed names a template that is not there.
  createSandbox: { template: 'no-such-template' },
  createSnapshot: { sandbox_id: UNKNOWN, name: 'no-such-sandbox' },
  exec: { cmd: 'true' },
  moveFile: { source: '/tmp/no-such-file', destination: '/tmp/no-such-folder/x' },
  createKey: { name: 'fuzz' },
};
const PATH_BODIES = [
  'readFile',
  'readFileStream',
  'statFile',
  'listDir',
  'makeDir',
  'removeFile',
  'watchDir',
];
for (const operation of PATH_BODIES) VALID[operation] = { path: '/tmp/no-such-file' };
/** Ids and names in bodies: none of these strings may be taken for one. */
const NAMES: Record<string, string[]> = {
  createSandbox: ['template'],
  createSnapshot: ['sandbox_id', 'name'],
};

describe('harmful names and ids', () => {
  let thaw: TestThaw;
  let id: string;
  let api: Description;
  let daemons: unknown;
  before(async () => {
    thaw = await startThaw();
    id = (await thaw.sdk.sandboxes.create()).id;
    api = parse(readFileSync(path.join(import.meta.dirname, '../../spec/openapi.yaml'), 'utf8'));
    daemons = await thaw.agentPids();
  });
  after(async () => {
    await thaw?.stop();
  });

  function operations(): { method: string; url: string; operation: Operation }[] {
    return Object.entries(api.paths).flatMap(([url, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({
        method: method.toUpperCase(),
        url,
        operation,
      })),
    );
  }

  it('in paths are not found', async () => {
    const cases = operations().flatMap(({ method, url, operation }) =>
      (operation.parameters ?? [])
        .filter((parameter) => parameter.in === 'path')
        .flatMap(({ name }) => HARMFUL.map((value) => ({ method, url, name, value }))),
    );
    assert.ok(cases.length > 300);
    await inGroups(cases, async ({ method, url, name, value }) => {
      const at = url.replace(`{${name}}`, encoded(value));
      const { status } = await ask(method, at, method === 'GET' ? undefined : '{}');
      // A shorter path may be another route, which answers something else or not this method.
      const allowed = ['', '.', '..'].includes(value) ? status < 500 : [400, 404, 405, 414].includes(status);
      assert.ok(allowed, `${method} ${at.slice(0, 120)} answered ${status}`);
    });
  });

  it('in queries are refused or taken as text', async () => {
    const cases = operations().flatMap(({ method, url, operation }) =>
      (operation.parameters ?? [])
        .filter((parameter) => parameter.in === 'query')
        .flatMap(({ name }) => HARMFUL.map((value) => ({ method, url, name, value }))),
    );
    await inGroups(cases, async ({ method, url, name, value }) => {
      const at = `${url.replace('{id}', id)}?${name}=${encoded(value)}`;
      const { status } = await ask(method, at, method === 'GET' ? undefined : '{}');
      assert.ok(status < 500, `${method} ${at.slice(0, 120)} answered ${status}`);
    });
  });

  it('in bodies are refused or taken as text', async () => {
    const cases = operations().flatMap(({ method, url, operation }) => {
      const body = operation.requestBody?.content['application/json']?.schema;
      if (!body) return [];
      return fieldsOf(body).flatMap((field) =>
        HARMFUL.map((value) => ({ method, url, operation, field, value })),
      );
    });
    assert.ok(cases.length > 300);
    await inGroups(cases, async ({ method, url, operation: { operationId }, field, value }) => {
      if (isWish(operationId, field.name, value)) return;
      const body = { ...VALID[operationId], ...field.put(value) };
      const at = url.replace('{id}', url.startsWith('/v1/keys') ? 'no-such-key' : id);
      const { status } = await ask(method, at, JSON.stringify(body));
      const what = `${method} ${url} ${field.name} ${JSON.stringify(value).slice(0, 60)} answered ${status}`;
      assert.ok(status < 500, what);
      if (NAMES[operationId]?.includes(field.name)) assert.ok([400, 404].includes(status), what);
    });
  });

  it('in forms are refused or taken as text', async () => {
    const cases = ['write', 'stream/write'].flatMap((verb) =>
      ['path', 'user'].flatMap((field) => HARMFUL.map((value) => ({ verb, field, value }))),
    );
    await inGroups(cases, async ({ verb, field, value }) => {
      const form = new FormData();
      form.set('path', field === 'path' ? value : '/tmp/fuzz');
      if (field === 'user') form.set('user', value);
      form.set('file', new Blob(['x']), value.replaceAll('\0', ''));
      const response = await fetch(`${thaw.url}/v1/sandboxes/${id}/files/${verb}`, {
        method: 'POST',
        headers: { 'X-API-Key': thaw.key },
        body: form,
      });
      await response.body?.cancel();
      assert.ok(
        response.status < 500,
        `${verb} ${field} ${JSON.stringify(value)} answered ${response.status}`,
      );
      if (field === 'user') assert.equal(response.status, 400, value);
    });
  });

  it('in a stream are refused or taken as text', async () => {
    const cases = ['type', 'cmd', 'cwd', 'user', 'args', 'env', 'key'].flatMap((field) =>
      HARMFUL.map((value) => ({ field, value })),
    );
    await inGroups(cases, async ({ field, value }) => {
      const put = field === 'args' ? [value] : field === 'env' ? { A: value, [value]: 'x' } : value;
      const first =
        field === 'key' ? { type: 'auth', key: value } : { type: 'start', cmd: 'true', [field]: put };
      const url = `${thaw.url.replace('http', 'ws')}/v1/sandboxes/${id}/exec/stream`;
      const socket = new WebSocket(url, { headers: field === 'key' ? {} : { 'X-API-Key': thaw.key } });
      const closed = await new Promise<number>((resolve, reject) => {
        socket.on('open', () => socket.send(JSON.stringify(first)));
        socket.on('error', reject);
        socket.on('close', resolve);
      });
      assert.ok([1000, 1008].includes(closed), `${field} ${JSON.stringify(value)} closed with ${closed}`);
    });
  });

  it('in the calls of the host agent are refused or taken as text', async () => {
    const transport = createConnectTransport({
      httpVersion: '1.1',
      baseUrl: 'http://host-agent',
      nodeOptions: { socketPath: path.join(thaw.run, 'agent.sock'), agent: false },
    });
    const client = createClient(HostAgentService, transport) as unknown as Record<
      string,
      (request: unknown, options: { signal: AbortSignal }) => unknown
    >;
    const cases = HostAgentService.methods
      .filter(({ methodKind }) => methodKind !== 'client_streaming')
      .flatMap((method) =>
        stringFields(method.input).flatMap((field) =>
          HARMFUL.filter((value) => value.isWellFormed()).map((value) => ({ method, field, value })),
        ),
      );
    assert.ok(cases.length > 300);
    await inGroups(cases, async ({ method, field, value }) => {
      if (isWish(method.localName, field.name, value)) return;
      const request = { ...hostValid(method.localName), ...field.put(value) };
      const what = `${method.name} ${field.name} ${JSON.stringify(value).slice(0, 60)}`;
      // A stream that is left is not ended by that.
      const leave = new AbortController();
      try {
        const signal = AbortSignal.any([leave.signal, AbortSignal.timeout(60_000)]);
        const answer = client[method.localName]!(request, { signal });
        if (method.methodKind === 'unary') await answer;
        else for await (const _ of answer as AsyncIterable<unknown>) break;
        assert.ok(!['sandboxId', 'templateId'].includes(field.name), `${what} was taken`);
      } catch (error) {
        if (!(error instanceof ConnectError)) throw error;
        const ours = [Code.Internal, Code.Unknown, Code.DataLoss, Code.DeadlineExceeded, Code.Canceled];
        assert.ok(!ours.includes(error.code), `${what}: ${error.message}`);
      } finally {
        leave.abort();
      }
    });
  });

  it('leave the host as it was', async () => {
    assert.equal(existsSync(CANARY), false);
    assert.deepEqual(await thaw.agentPids(), daemons, 'a daemon died');
    assert.equal(await thaw.sh(id, 'echo fine'), 'fine\n');
    const proper = /^([a-z0-9][a-z0-9_.-]{0,62}|[0-9a-f-]{36})$/;
    for (const folder of ['sandboxes', 'templates', 'builds'])
      for (const name of readdirSync(path.join(thaw.data, folder))) assert.match(name, proper, folder);
    const sandboxes = await Array.fromAsync(thaw.sdk.sandboxes.list());
    assert.deepEqual(
      sandboxes.map((sandbox) => sandbox.id),
      [id],
    );
  });

  async function ask(method: string, at: string, body?: string): Promise<{ status: number }> {
    const leave = new AbortController();
    const response = await fetch(thaw.url + at, {
      method,
      headers: { 'X-API-Key': thaw.key, 'Content-Type': 'application/json' },
      signal: leave.signal,
      ...(body !== undefined && { body }),
    });
    // Some answers never end.
    leave.abort();
    return { status: response.status };
  }

  /** What a call of the host agent needs besides the field that is fuzzed. */
  function hostValid(method: string): Record<string, unknown> {
    switch (method) {
      case 'createSandbox':
        return { sandboxId: UNKNOWN, template: 'no-such-template', vcpus: 1, memoryMb: 512, diskMb: 4096 };
      case 'createSnapshot':
        return { sandboxId: UNKNOWN, templateId: 'tplaaaaaaaaaaaaaaaaaaaa', name: 'fuzz' };
      case 'deleteSnapshot':
      case 'destroySandbox':
      case 'pauseSandbox':
      case 'resumeSandbox':
        return {};
      case 'exec':
      case 'execStream':
        return { sandboxId: id, cmd: 'true' };
      case 'moveFile':
        return { sandboxId: id, source: '/tmp/no-such-file', destination: '/tmp/no-such-folder/x' };
      default:
        return { sandboxId: id, path: '/tmp/no-such-file', pid: 999_999, network: { internet: true } };
    }
  }

  interface Field {
    name: string;
    put: (value: string) => Record<string, unknown>;
  }

  /** Every field that takes text, also as an element, a key or a value; deeper ones by their path. */
  function fieldsOf(schema: Schema): Field[] {
    const found = resolve(schema);
    return Object.entries(found.properties ?? {}).flatMap(([name, property]) => textIn(name, property));
  }

  function textIn(name: string, schema: Schema): Field[] {
    const found = resolve(schema);
    if (found.anyOf) return found.anyOf.flatMap((option) => textIn(name, option));
    if (found.type === 'array') return [{ name, put: (value) => ({ [name]: [value] }) }];
    if (found.type !== 'object') return [{ name, put: (value) => ({ [name]: value }) }];
    if (!found.properties)
      return [
        { name: `${name}.key`, put: (value) => ({ [name]: { [value]: 'x' } }) },
        { name: `${name}.value`, put: (value) => ({ [name]: { A: value } }) },
      ];
    return fieldsOf(found).map((field) => ({
      name: `${name}.${field.name}`,
      put: (value) => ({ [name]: field.put(value) }),
    }));
  }

  function resolve(schema: Schema): Schema {
    if (schema.$ref === undefined) return schema;
    return resolve(api.components.schemas[schema.$ref.split('/').at(-1)!] ?? {});
  }

  function stringFields(message: DescMessage): Field[] {
    return message.fields.flatMap((field) => textOf(field));
  }

  function textOf(field: DescField): Field[] {
    const { localName: name } = field;
    const isText = 'scalar' in field && field.scalar === ScalarType.STRING;
    switch (field.fieldKind) {
      case 'scalar':
        return isText ? [{ name, put: (value) => ({ [name]: value }) }] : [];
      case 'list':
        return isText ? [{ name, put: (value) => ({ [name]: [value] }) }] : [];
      case 'map':
        return [
          { name: `${name}.key`, put: (value) => ({ [name]: { [value]: 'x' } }) },
          { name: `${name}.value`, put: (value) => ({ [name]: { A: value } }) },
        ];
      case 'message':
        return stringFields(field.message).map((inner) => ({
          name: `${name}.${inner.name}`,
          put: (value) => ({ [name]: inner.put(value) }),
        }));
      default:
        return [];
    }
  }
});

/** As a client would send it; half a surrogate cannot be encoded, so it goes as the bytes that it would be. */
function encoded(value: string): string {
  return value.isWellFormed() ? encodeURIComponent(value) : '%ED%A0%80';
}

async function inGroups<T>(cases: T[], check: (one: T) => Promise<void>): Promise<void> {
  for (let start = 0; start < cases.length; start += GROUP) {
    await Promise.all(cases.slice(start, start + GROUP).map(check));
  }
}
