import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ERROR_KINDS } from '@thaw/api';
import { isE2bPath } from '../e2b/errors.ts';
import { TestPlane } from '../testing.ts';
import { describeApi } from './describe.ts';

interface Operation {
  operationId: string;
  summary: string;
  security?: unknown[];
  parameters?: { name: string; in: string; required: boolean }[];
  responses: Record<string, { $ref?: string; description?: string }>;
  requestBody?: unknown;
  'x-websocket'?: { receives: object[]; sends: object[] };
}
interface Described {
  openapi: string;
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, unknown>; responses: Record<string, unknown> };
}

describe('the description of the API', () => {
  let test: TestPlane;
  let described: Described;
  before(async () => {
    test = await TestPlane.start();
    described = test.running.app.swagger() as unknown as Described;
  });
  after(async () => {
    await test?.[Symbol.asyncDispose]();
  });

  const operations = () =>
    Object.entries(described.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({
        path,
        method: method.toUpperCase(),
        operation,
      })),
    );

  it('has every route that the server has, and no other', () => {
    const told = operations().map(({ path, method }) => `${method} ${path}`);
    const all = registered(test.running.app.printRoutes({ commonPrefix: false }));
    // The E2B API is described by who made it.
    const own = all.filter((route) => !isE2bPath(route.split(' ')[1]!));
    assert.ok(own.length < all.length);
    assert.deepEqual(told.sort(), own.sort());
  });

  it('describes routes that answer as it says', async () => {
    for (const { path, method, operation } of operations()) {
      const url = test.url + path.replace(/\{\w+\}/g, 'x');
      const { status } = await fetch(url, { method });
      if (operation.security?.length === 0) assert.equal(status, 200, `${method} ${path}`);
      // A WebSocket may bring its key later.
      else if (operation['x-websocket'])
        assert.ok([401, 426].includes(status), `${method} ${path}: ${status}`);
      else assert.equal(status, 401, `${method} ${path}`);
    }
  });

  it('says of each route what it is, what it takes and which errors it has', () => {
    const ids = new Set<string>();
    for (const { path, method, operation } of operations()) {
      const where = `${method} ${path}`;
      assert.ok(operation.summary.length > 5, where);
      assert.match(operation.operationId, /^[a-z][A-Za-z]+$/, where);
      assert.ok(!ids.has(operation.operationId), operation.operationId);
      ids.add(operation.operationId);
      const inPath = [...path.matchAll(/\{(\w+)\}/g)].map((match) => match[1]);
      const told = (operation.parameters ?? []).filter((one) => one.in === 'path').map(({ name }) => name);
      assert.deepEqual(told, inPath, where);
      assert.equal(operation.responses.default?.$ref, '#/components/responses/default', where);
      assert.ok(
        Object.keys(operation.responses).some((status) => /^[12]/.test(status)),
        `${where} has no answer`,
      );
      if (operation.security === undefined) assert.ok(operation.responses['401'], where);
      if (inPath.length > 0) assert.ok(operation.responses['404'], where);
    }
    const streams = operations().filter(({ operation }) => operation['x-websocket']);
    assert.ok(streams.length > 0);
    for (const { operation } of streams) {
      assert.ok(operation['x-websocket']!.receives.length > 0);
      assert.ok(operation['x-websocket']!.sends.length > 0);
    }
  });

  it('refers only to what is there, and has nothing that nobody refers to', () => {
    const text = JSON.stringify(described);
    const used = new Set([...text.matchAll(/"#\/components\/(\w+)\/(\w+)"/g)].map((m) => `${m[1]}/${m[2]}`));
    const there = [
      ...Object.keys(described.components.schemas).map((name) => `schemas/${name}`),
      ...Object.keys(described.components.responses).map((name) => `responses/${name}`),
    ];
    assert.deepEqual([...used].sort(), there.sort());
    for (const kind of Object.keys(ERROR_KINDS)) assert.ok(text.includes(kind), kind);
  });

  it('is served without a key, the same as it is made without a server', async () => {
    const response = await fetch(`${test.url}/openapi.yaml`);
    assert.equal(response.status, 200);
    assert.match(response.headers.get('content-type') ?? '', /yaml/);
    assert.equal(await response.text(), await describeApi());
  });

  it('is a page that loads and runs nothing', async () => {
    const response = await fetch(`${test.url}/docs`);
    const page = await response.text();
    assert.match(response.headers.get('content-security-policy') ?? '', /default-src 'none'/);
    assert.doesNotMatch(page, /<script|<link|<img|<iframe|@import|url\(|\bon\w+=/i);
    assert.doesNotMatch(page, /(?:src|href)="(?:[a-z]+:)?\/\//i);
    for (const { path } of operations()) assert.ok(page.includes(path), path);
    const anchors = [...page.matchAll(/href="#([^"]+)"/g)].map((match) => match[1]!);
    for (const anchor of new Set(anchors)) assert.ok(page.includes(`id="${anchor}"`), anchor);
  });
});

/** What the router has, from the tree that it prints; HEAD comes with GET. */
function registered(tree: string): string[] {
  const routes: string[] = [];
  const above: string[] = [];
  for (const line of tree.split('\n')) {
    const match = /^([│ ]*)[├└]── (\S*)(?: \((.*)\))?$/.exec(line);
    if (!match) continue;
    const depth = match[1]!.length / 4;
    above.length = depth;
    above.push(match[2]!);
    const path = above.join('').replace(/:(\w+)/g, '{$1}');
    for (const method of (match[3] ?? '').split(', ')) {
      if (/^(GET|POST|PUT|PATCH|DELETE)$/.test(method)) routes.push(`${method} ${path}`);
    }
  }
  return routes;
}
