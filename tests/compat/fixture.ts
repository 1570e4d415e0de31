/** What an earlier version left: read here, never written. */
import { cp, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

export const FIXTURE = path.join(import.meta.dirname, 'fixture-1');

export interface Expected {
  key: string;
  builds: { id: string; memory: string | null; disk: string }[];
  sandbox: string;
  template: string;
}

export async function readExpected(): Promise<Expected> {
  return JSON.parse(await readFile(path.join(FIXTURE, 'expected.json'), 'utf8')) as Expected;
}

export function readSql(): Promise<string> {
  return readFile(path.join(FIXTURE, 'database.sql'), 'utf8');
}

/** A data folder of that version, to be worked in. */
export async function copyData(): Promise<{ data: string } & AsyncDisposable> {
  const data = await mkdtemp(path.join(tmpdir(), 'thaw-compat-'));
  await cp(path.join(FIXTURE, 'data'), data, { recursive: true });
  return { data, [Symbol.asyncDispose]: () => rm(data, { recursive: true, force: true }) };
}
