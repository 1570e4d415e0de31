/** What happens in a run: clients ask, steps fail, daemons and VMs end, as the seed says. */
import { databaseOutage } from './database.ts';
import { type Known, nextOperation, type Operation, requestOf } from './operations.ts';
import type { Profile } from './profile.ts';
import type { Random } from './random.ts';
import type { World } from './world.ts';

const OPERATIONS = 28;
const CLIENTS = 4;
/** Turns of the scheduler that no operation needs. */
const STUCK_AFTER = 30_000;
/** No fault here: what gives things back has nobody to tell, and the next start of the host agent does it again. */
const NEVER_FAILS = /^(keeper:end|slot:release|keeper:connect|answer|rpc)/;

export class Course {
  readonly history: Operation[] = [];
  turns = 0;
  readonly world: World;
  readonly #random: Random;
  readonly profile: Profile;
  readonly #key: string;
  readonly known = new Map<string, Known>();
  readonly #open = new Map<Operation, AbortController>();

  constructor(world: World, random: Random, profile: Profile, key: string) {
    this.world = world;
    this.#random = random;
    this.profile = profile;
    this.#key = key;
  }

  /** The part in which things happen. */
  async play(): Promise<void> {
    const world = this.world;
    world.startHost();
    world.startPlane();
    await this.until(() => world.host !== undefined && world.plane !== undefined);
    await this.until(() => world.plane !== undefined && this.world.scheduler.waiting === 0);
    world.scheduler.faultAt = (label) => this.#fault(label);
    while (this.history.length < OPERATIONS || this.#open.size > 0) {
      await this.#turn();
      this.#expectProgress();
    }
    world.scheduler.faultAt = () => undefined;
  }

  #fault(label: string): Error | undefined {
    if (label === 'db') return this.#random.chance(this.profile.outage) ? databaseOutage() : undefined;
    if (NEVER_FAILS.test(label)) return undefined;
    return this.#random.chance(this.profile.fault) ? new Error(`a test made ${label} fail`) : undefined;
  }

  #expectProgress(): void {
    for (const { kind, sandbox, start } of this.#open.keys()) {
      if (this.turns - start > STUCK_AFTER) throw new Error(`${kind} of ${sandbox} never ends`);
    }
  }

  async #turn(): Promise<void> {
    const { scheduler, clock, room } = this.world;
    await scheduler.settle();
    this.turns += 1;
    const wanted = this.history.length < OPERATIONS && this.#open.size < CLIENTS && this.world.plane;
    const vms = room.keepers.filter(({ vm }) => vm !== undefined);
    const up = { host: this.world.host !== undefined, plane: this.world.plane !== undefined };
    const starting = { host: this.world.hostStarts, plane: this.world.planeStarts };
    const choice = this.#random.weighted({
      step: scheduler.waiting > 0 ? 20 : 0,
      ask: wanted ? 3 : 0,
      wait: scheduler.waiting > 0 ? 0.05 : 1,
      leave: this.#open.size > 0 ? 0.05 : 0,
      killHost: up.host || starting.host ? this.profile.killHost : 0,
      killPlane: up.plane || starting.plane ? this.profile.killPlane : 0,
      killVm: vms.length > 0 ? this.profile.killVm : 0,
      startHost: up.host || starting.host ? 0 : 3,
      startPlane: up.plane || starting.plane ? 0 : 3,
    });
    if (choice !== 'step') scheduler.note(choice);
    switch (choice) {
      case 'step':
        return scheduler.step();
      case 'ask':
        return this.#ask(nextOperation(this.#random, [...this.known.values()], this.turns));
      case 'wait':
        return void clock.advance();
      case 'leave': {
        const [operation, client] = this.#random.pick([...this.#open]);
        operation.left = true;
        return client.abort();
      }
      case 'killHost':
        return this.world.killHost();
      case 'killPlane':
        return this.world.killPlane();
      case 'killVm':
        this.#random.pick(vms).endVm();
        return room.changed();
      case 'startHost':
        return this.world.startHost();
      case 'startPlane':
        return this.world.startPlane();
    }
  }

  #ask(operation: Operation): void {
    const client = new AbortController();
    this.history.push(operation);
    this.#open.set(operation, client);
    const { method, url, body } = requestOf(operation);
    void this.world.request(this.#key, method, url, body, client.signal).then((answer) => {
      this.#open.delete(operation);
      operation.end = this.turns;
      operation.status = answer?.status;
      operation.body = answer?.body;
      this.#learn(operation);
    });
  }

  /** What the client knows after the answer. */
  #learn(operation: Operation): void {
    const { kind, status, body, value } = operation;
    if ((kind === 'create' || kind === 'spawn') && status === 201) {
      operation.sandbox = body.id as string;
      this.known.set(body.id, {
        id: body.id,
        status: 'running',
        lastPut: 0,
        autoResume: operation.autoResume,
      });
    }
    const known = this.known.get(operation.sandbox ?? '');
    if (known === undefined) return;
    if (kind === 'fork' && status === 201) this.#learnForks(known, operation);
    if (status === undefined || status >= 500) known.status = known.status === 'gone' ? 'gone' : 'unknown';
    else if (kind === 'put' && status === 200) known.lastPut = value!;
    else if (kind === 'destroy' && status === 204) known.status = 'gone';
    else if (known.status !== 'gone' && kind === 'pause' && status === 200) known.status = 'paused';
    else if (known.status !== 'gone' && kind === 'resume' && status === 200) known.status = 'running';
    else if (known.status !== 'gone' && status === 409) known.status = 'unknown';
  }

  /** They have at least what their source had when it was forked: of puts that overlap any may be the last. */
  #learnForks({ id: source, autoResume }: Known, { body, start }: Operation): void {
    const puts = this.history.filter(({ kind, sandbox }) => kind === 'put' && sandbox === source);
    const sure = puts.filter(({ status, end }) => status === 200 && end! < start);
    const perhapsLast = puts.filter((put) => !sure.some((later) => later.start > (put.end ?? Infinity)));
    const lastPut = sure.length === 0 ? 0 : Math.min(...perhapsLast.map(({ value }) => value!));
    for (const { sandbox } of body.forks as { sandbox?: { id: string } }[]) {
      if (sandbox === undefined) continue;
      this.known.set(sandbox.id, { id: sandbox.id, status: 'running', lastPut, autoResume });
    }
  }

  /** Lets everything go on without faults until `holds`. */
  async until(holds: () => boolean): Promise<void> {
    const { scheduler, clock } = this.world;
    for (let turns = 0; ; turns++) {
      await scheduler.settle();
      this.turns += 1;
      if (holds()) return;
      if (turns > STUCK_AFTER) throw new Error(`waited in vain for ${holds}`);
      if (scheduler.waiting > 0) scheduler.step();
      else clock.advance();
    }
  }

  /** Lets everything go on until `work` has ended. */
  async done<T>(work: Promise<T>): Promise<T> {
    let over = false;
    const end = () => {
      over = true;
    };
    work.then(end, end);
    await this.until(() => over);
    return await work;
  }

  /** One request when nothing else is asked. Throws when the control plane ends under it. */
  async get(method: 'GET' | 'POST' | 'DELETE', url: string, body?: object) {
    const answer = await this.done(this.world.request(this.#key, method, url, body));
    if (answer === undefined) throw new Error(`${method} ${url} was cut`);
    return answer as { status: number; body: Operation['body'] };
  }
}
