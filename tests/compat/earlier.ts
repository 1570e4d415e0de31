/** Brings what this version has written into the form of an earlier one: whatever that one did not know is left out. */
import { readdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { FIXTURE, readSql } from './fixture.ts';

type Json = Record<string, unknown>;
type Line = { table?: string; rows?: Json[]; end?: number; migration?: string };

/** Rewrites the unpacked backup in `folder`: records, heads and the database as the first format had them. */
export async function bringBack(folder: string): Promise<void> {
  const sandbox = await known('sandboxes', 'sandbox.json');
  await rewriteAll(path.join(folder, 'sandboxes'), 'sandbox.json', (record) => keep(record, sandbox));
  for (const kind of ['sandboxes', 'templates']) {
    const facts = await knownFacts(kind);
    await rewriteAll(path.join(folder, kind), 'head', (head) => ({
      ...keep(head, ['format', 'build', 'facts']),
      facts: keep(head.facts as Json, facts),
    }));
  }
  await bringBackDatabase(path.join(folder, 'database.jsonl'));
}

async function bringBackDatabase(file: string): Promise<void> {
  const columns = await knownColumns();
  const lines = (await readFile(file, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  let count = 0;
  const kept = lines.flatMap((line: Line): Json[] => {
    if (line.migration !== undefined) return [{ ...line, migration: '0001_first' }];
    if (line.end !== undefined) return [{ end: count }];
    const names = columns.get(line.table ?? '');
    if (names === undefined) return [];
    count += line.rows!.length;
    return [{ table: line.table, rows: line.rows!.map((row) => keep(row, names)) }];
  });
  await writeFile(file, `${kept.map((line) => JSON.stringify(line)).join('\n')}\n`);
}

/** The columns of each table, read from the fixture's SQL. */
async function knownColumns(): Promise<Map<string, string[]>> {
  const tables = (await readSql()).matchAll(/^CREATE TABLE public\.(\w+) \(\n([\s\S]*?)\n\);$/gm);
  return new Map(
    [...tables].map(([, name, body]) => [
      name!,
      [...body!.matchAll(/^ {4}(\w+) /gm)].map((match) => match[1]!).filter((word) => word !== 'CONSTRAINT'),
    ]),
  );
}

async function known(kind: string, name: string): Promise<string[]> {
  const owners = await readdir(path.join(FIXTURE, 'data', kind));
  const texts = await Promise.all(
    owners.map((owner) => readFile(path.join(FIXTURE, 'data', kind, owner, name), 'utf8')),
  );
  return [...new Set(texts.flatMap((text) => Object.keys(JSON.parse(text))))];
}

async function knownFacts(kind: string): Promise<string[]> {
  const owners = await readdir(path.join(FIXTURE, 'data', kind));
  const texts = await Promise.all(
    owners.map((owner) => readFile(path.join(FIXTURE, 'data', kind, owner, 'head'), 'utf8')),
  );
  return [...new Set(texts.flatMap((text) => Object.keys(JSON.parse(text).facts)))];
}

async function rewriteAll(folder: string, name: string, change: (value: Json) => Json): Promise<void> {
  for (const owner of await readdir(folder)) {
    const file = path.join(folder, owner, name);
    await writeFile(file, JSON.stringify(change(JSON.parse(await readFile(file, 'utf8')))));
  }
}

function keep(value: Json, names: readonly string[]): Json {
  return Object.fromEntries(Object.entries(value).filter(([name]) => names.includes(name)));
}
