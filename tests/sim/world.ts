/**
 * The shipped verbs of both daemons in one process: the control plane on a real database, the host agent on real files.
 * Either can be ended at any moment, as by a kill, and started again on what is left.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { Code, ConnectError, createRouterTransport, type Transport } from '@connectrpc/connect';
import type pg from 'pg';
import { pino } from 'pino';
import { readConfig as readPlaneConfig } from '../../packages/control-plane/src/config.ts';
import { hostOver } from '../../packages/control-plane/src/host/agent.ts';
import { type ControlPlane, startControlPlane } from '../../packages/control-plane/src/start.ts';
import { collectBuilds } from '../../packages/host-agent/src/build/collect.ts';
import { listHeads, readHead } from '../../packages/host-agent/src/build/head.ts';
import { readConfig } from '../../packages/host-agent/src/config.ts';
import type { Host } from '../../packages/host-agent/src/host.ts';
import { Cgroups } from '../../packages/host-agent/src/os/cgroup/cgroups.ts';
import { Steps } from '../../packages/host-agent/src/os/step.ts';
import { routes } from '../../packages/host-agent/src/rpc/routes.ts';
import { startHost } from '../../packages/host-agent/src/start.ts';
import { keepBootFiles } from '../../packages/host-agent/src/vmm/boot-files.ts';
import type { Clock } from './clock.ts';
import { gatedDatabase } from './database.ts';
import { roomGuests } from './guests.ts';
import { RoomKit, RoomSlots, roomKeepers } from './host-fakes.ts';
import { Room } from './room.ts';
import { Life, type Scheduler } from './scheduler.ts';

const MIB = 2 ** 20;
const DAY_MS = 86_400_000;
const log = pino({ level: process.env.THAW_LOG_LEVEL ?? 'silent' });

interface RunningHost {
  host: Host;
  transport: Transport;
}

export class World implements Disposable {
  readonly room = new Room();
  readonly scheduler: Scheduler;
  readonly clock: Clock;
  readonly #pool: pg.Pool;
  readonly #root: string;
  #hostLife: Life | undefined;
  #planeLife: Life | undefined;
  #host: RunningHost | undefined;
  #plane: ControlPlane | undefined;
  #starts = 0;
  #calls = 0;

  constructor(scheduler: Scheduler, clock: Clock, pool: pg.Pool) {
    this.scheduler = scheduler;
    this.clock = clock;
    this.#pool = pool;
    this.#root = mkdtempSync(path.join(memoryFolder(), 'thaw-sim-'));
    for (const name of ['data', 'run/sandboxes', 'version/guest']) {
      mkdirSync(path.join(this.#root, name), { recursive: true });
    }
    writeGuestFiles(path.join(this.#root, 'version', 'guest'));
  }

  get host(): Host | undefined {
    return this.#host?.host;
  }

  get plane(): ControlPlane | undefined {
    return this.#plane;
  }

  get hostStarts(): boolean {
    return this.#hostLife !== undefined && this.#host === undefined;
  }

  get planeStarts(): boolean {
    return this.#planeLife !== undefined && this.#plane === undefined;
  }

  /** Of the control plane that runs now; a request that it dies under is cut. */
  get planeEnded(): Promise<void> {
    return this.#planeLife?.ended ?? Promise.resolve();
  }

  /** Starts in the background; a start that fails leaves no host. */
  startHost(): void {
    const life = new Life(`host${++this.#starts}`);
    this.#hostLife = life;
    this.#bootHost(life).catch((error) => {
      this.scheduler.note(`${life.name} did not start: ${error}`);
      if (this.#hostLife === life) this.killHost();
    });
  }

  async #bootHost(life: Life): Promise<void> {
    const gate = this.scheduler.gateOf(life);
    const data = path.join(this.#root, 'data');
    const config = readConfig({
      THAW_DATA: data,
      THAW_RUN: path.join(this.#root, 'run'),
      THAW_VERSION_DIR: path.join(this.#root, 'version'),
      THAW_CGROUP: 'off',
      THAW_PLACES: '0',
      THAW_DISK_RESERVE_MB: '0',
    });
    const guestDir = path.join(config.versionDir, 'guest');
    const vmm = new RoomKit(this.room, gate);
    const { host } = await startHost({
      config,
      log,
      guestDir,
      cgroups: await Cgroups.open({ instance: 'sim', group: 'off' }),
      boot: await keepBootFiles(data, guestDir),
      vmm,
      kitOf: async () => vmm,
      keepers: roomKeepers(this.room, gate),
      guests: roomGuests(this.room, gate),
      preloadSha: 'sim',
      fault: (label) => gate(`step ${label}`),
      openSlots: async (keep) =>
        new RoomSlots(
          this.room,
          keep.map(({ index }) => index),
          gate,
        ),
    });
    if (!life.alive) return;
    this.#host = { host, transport: createRouterTransport(routes(host)) };
    this.scheduler.note(`${life.name} runs`);
  }

  killHost(): void {
    this.#hostLife?.end();
    this.#hostLife = undefined;
    this.#host = undefined;
  }

  startPlane(): void {
    const life = new Life(`plane${++this.#starts}`);
    this.#planeLife = life;
    const gate = this.scheduler.gateOf(life);
    const start = async () => {
      const plane = await startControlPlane(
        readPlaneConfig({
          DATABASE_URL: 'postgres:///given',
          THAW_LISTEN: '127.0.0.1:0',
          THAW_PROXY_LISTEN: 'off',
          THAW_RUN: path.join(this.#root, 'run'),
        }),
        log,
        {
          database: gatedDatabase(this.#pool, this.scheduler, gate),
          host: hostOver(this.#toHost(life), log),
        },
      );
      plane.app.server.close();
      if (!life.alive) return;
      this.#plane = plane;
      this.scheduler.note(`${life.name} runs`);
    };
    start().catch((error) => {
      this.scheduler.note(`${life.name} did not start: ${error}`);
      if (this.#planeLife === life) this.killPlane();
    });
  }

  killPlane(): void {
    this.#planeLife?.end();
    this.#planeLife = undefined;
    this.#plane = undefined;
  }

  /** From one control plane to whichever host agent runs at that moment. */
  #toHost(from: Life): Transport {
    const reach = async <T>(name: string, call: (transport: Transport) => Promise<T>): Promise<T> => {
      await this.scheduler.gate(from, `rpc ${name}`);
      const life = this.#hostLife;
      if (this.#host === undefined || life === undefined) throw cutOff();
      const answer = call(this.#host.transport);
      answer.catch(() => {});
      const cut = life.ended.then(() => Promise.reject(cutOff()));
      const outcome = Promise.race([answer, cut]);
      outcome.catch(() => {});
      await outcome.catch(() => {});
      await this.scheduler.gate(from, `answer ${name}`);
      return await outcome;
    };
    return {
      unary: (method, ...rest) => reach(method.name, (host) => host.unary(method, ...rest)),
      stream: (method, ...rest) => reach(method.name, (host) => host.stream(method, ...rest)),
    };
  }

  /** One HTTP request; resolves to undefined when the control plane ended under it. */
  async request(
    key: string,
    method: 'GET' | 'POST' | 'DELETE',
    url: string,
    body?: object,
    signal?: AbortSignal,
  ): Promise<{ status: number; body: Record<string, never> } | undefined> {
    const call = ++this.#calls;
    if (this.#plane === undefined) return undefined;
    const injected = this.#plane.app.inject({
      method,
      url,
      headers: { 'x-api-key': key },
      ...(body !== undefined && { payload: body }),
      ...(signal !== undefined && { signal }),
    });
    const answer = injected.then(
      ({ statusCode, payload }) => ({
        status: statusCode,
        body: payload === '' ? {} : JSON.parse(payload),
      }),
      () => undefined,
    );
    const answered = await Promise.race([answer, this.planeEnded]);
    this.scheduler.note(`request ${call}: ${method} ${url} ${answered?.status ?? 'cut'}`);
    return answered ?? undefined;
  }

  /** What is left on the host when nothing should be. `swept`: what a killed host agent may leave is swept first. */
  async remains(swept: boolean): Promise<string[]> {
    const { host } = this;
    if (host === undefined) return ['the host does not run'];
    if (swept) await collectBuilds(host.builds, new Steps(), { nowMs: Date.now() + DAY_MS });
    const left: string[] = [];
    const base = new Set<string>();
    for (const id of await readdir(host.builds.paths.owners('template'))) {
      const owner = { kind: 'template', id } as const;
      if (id !== 'minimal') left.push(`template ${id}`);
      base.add((await readHead(host.builds, owner))!.build);
    }
    for (const { head } of await listHeads(host.builds, 'boot'))
      if (!(head instanceof Error)) base.add(head.build);
    for (const name of await readdir(host.builds.paths.builds))
      if (!base.has(name)) left.push(`build ${name}`);
    for (const root of ['data', 'run']) {
      for (const name of await readdir(path.join(this.#root, root, 'sandboxes')))
        left.push(`${root} of ${name}`);
    }
    for (const index of this.room.slots) left.push(`slot ${index}`);
    for (const index of this.room.egress) left.push(`the rule of slot ${index}`);
    for (const { runDir } of this.room.keepers) left.push(`the keeper of ${path.basename(runDir)}`);
    for (const id of host.builds.holds.ids()) left.push(`a hold of build ${id}`);
    for (const id of host.builds.pending) left.push(`a pending build ${id}`);
    for (const { id } of host.registry.all()) left.push(`sandbox ${id}`);
    if (host.slots.counts().taken > 0) left.push('slots that are taken');
    return left;
  }

  [Symbol.dispose](): void {
    this.killHost();
    this.killPlane();
    rmSync(this.#root, { recursive: true, force: true });
  }
}

function cutOff(): ConnectError {
  return new ConnectError('the host agent hung up', Code.Unavailable);
}

/** Nothing of a run must survive it, so its files need no disk. */
function memoryFolder(): string {
  return os.platform() === 'linux' ? '/dev/shm' : os.tmpdir();
}

function writeGuestFiles(folder: string): void {
  const image = Buffer.alloc(MIB);
  image.write('a file system', 64 * 1024);
  writeFileSync(path.join(folder, 'minimal.img'), image);
  writeFileSync(path.join(folder, 'vmlinux'), 'kernel');
  writeFileSync(path.join(folder, 'initramfs.cpio'), 'initramfs');
  const minimal = { file: 'minimal.img', size_bytes: MIB, id: 'one' };
  writeFileSync(path.join(folder, 'guest.json'), JSON.stringify({ images: { minimal } }));
}
