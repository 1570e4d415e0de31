/**
 * `make bench`: what an installed Thaw takes on this machine, each figure beside its alternative from the same run.
 * Prints a table and writes bench/out/bench.json. A missed bar is said, but is no failure of the program.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Thaw } from '@thaw/sdk';
import { ThrowawayThaw } from '../scripts/throwaway/thaw.ts';
import { api } from './api.ts';
import { clones } from './clones.ts';
import { faults } from './fault.ts';
import { type Figure, table } from './figure.ts';
import { frozen } from './frozen.ts';
import { lifecycle } from './lifecycle.ts';
import { paging } from './paging.ts';
import { proxy } from './proxy.ts';

/** They take half a second each. */
const PAGING_ROUNDS = 25;
const PLACES = 2;
const OUT = path.join(import.meta.dirname, 'out');

async function main(version: string, rounds: number, signal: AbortSignal): Promise<void> {
  const progress = (text: string) => process.stderr.write(`bench: ${text}\n`);
  const figures: Figure[] = [];
  // First, while nothing else is at work or being cleaned up.
  const ofPaging = await paging(PAGING_ROUNDS, signal, progress);
  {
    await using undo = new AsyncDisposableStack();
    progress('starting Thaw');
    const own = undo.use(
      await ThrowawayThaw.start({
        version,
        signal,
        env: { THAW_SPARES: 'minimal=1', THAW_PLACES: String(PLACES) },
      }),
    );
    const cold = undo.use(await ThrowawayThaw.start({ version, signal, env: { THAW_KEPT_BOOTS: '0' } }));
    const scratch = await mkdtemp('/var/tmp/thawd-bench-');
    undo.defer(() => rm(scratch, { recursive: true, force: true }));
    const stoppable: typeof fetch = (url, init) => fetch(url, { ...init, signal });
    const thaw = new Thaw({ url: own.url, key: own.key, fetch: stoppable });
    const booting = new Thaw({ url: cold.url, key: cold.key, fetch: stoppable });
    const spareReady = () => until(own, stoppable, 'thaw_spares{state="ready"} 1');
    const placesReady = () =>
      until(own, stoppable, `thaw_places{state="ready"} ${PLACES}`, 'thaw_places{state="making"} 0');
    const image = path.join(version, 'guest/minimal.ext4');
    figures.push(
      ...(await lifecycle({ thaw, booting, spareReady, placesReady, rounds, scratch, image, progress })),
    );
    figures.push(...(await frozen(thaw, { rounds, scratch, progress })));
    figures.push(...(await faults(thaw, Math.max(2, rounds - 2), progress)));
    figures.push(...(await api({ thaw, url: own.url, key: own.key, data: own.data, progress })));
    figures.push(...(await proxy({ thaw, proxyUrl: own.proxyUrl, progress })));
    await own.stop();
    await cold.stop();
  }
  figures.push(...(await clones({ version, signal, rounds, progress })));
  figures.push(...ofPaging);
  await mkdir(OUT, { recursive: true });
  await writeFile(path.join(OUT, 'bench.json'), `${JSON.stringify(figures, null, 2)}\n`);
  const { length: cpus } = os.cpus();
  console.log(`\nmedians of ${rounds} rounds on ${cpus} CPUs, ${os.release()}\n`);
  console.log(table(figures));
  const missed = figures.filter(({ ok }) => !ok);
  if (missed.length > 0) console.log(`\nmissed: ${missed.map(({ name }) => name).join('; ')}`);
}

/** Until the figures have all of these lines. */
async function until({ url, key }: ThrowawayThaw, get: typeof fetch, ...lines: string[]): Promise<void> {
  for (;;) {
    const figures = await (await get(`${url}/metrics`, { headers: { 'X-API-Key': key } })).text();
    if (lines.every((line) => figures.includes(line))) return;
    await sleep(200);
  }
}

const { values } = parseArgs({ options: { rounds: { type: 'string', default: '5' } } });
const version = process.env.THAW_VERSION_DIR;
const rounds = Number(values.rounds);
if (version === undefined || !Number.isInteger(rounds) || rounds < 1) {
  process.stderr.write('usage: THAW_VERSION_DIR=… bench/main.ts [--rounds N]\n');
  process.exit(2);
}
const interrupted = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(name, () => interrupted.abort(new Error('interrupted')));
}
try {
  await main(version, rounds, interrupted.signal);
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : error}\n`);
  process.exitCode = interrupted.signal.aborted ? 130 : 1;
}
process.exit();
