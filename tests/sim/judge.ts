/** What must hold when everything is up again and nothing fails any more, whatever happened before. */
import { reconcile } from '../../packages/control-plane/src/reconcile/loop.ts';
import { syncTemplates } from '../../packages/control-plane/src/template/sync.ts';
import type { Course } from './course.ts';
import { explain } from './model.ts';
import type { Known, Operation } from './operations.ts';

export class Judge {
  readonly violations: string[] = [];
  readonly #course: Course;

  constructor(course: Course) {
    this.#course = course;
  }

  #check(holds: boolean, otherwise: string): void {
    if (!holds) this.violations.push(otherwise);
  }

  /** Everything is up again and nothing fails. */
  async judge(): Promise<void> {
    const world = this.#course.world;
    if (world.host === undefined && !world.hostStarts) world.startHost();
    if (world.plane === undefined && !world.planeStarts) world.startPlane();
    await this.#course.until(() => world.host !== undefined && world.plane !== undefined);
    // What still runs by itself ends: verbs whose clients are gone, retries, the first round of reconcile.
    const quietAtMs = world.clock.nowMs + 60_000;
    await this.#course.until(() => world.scheduler.waiting === 0 && world.clock.nowMs > quietAtMs);
    this.#judgeAnswers();
    await this.#course.done(syncTemplates(world.plane!.plane));
    await this.#course.done(reconcile(world.plane!.plane));
    const running = await this.#judgeRows();
    // A host has no room for all at once: those that run come first, and each leaves its place to the others.
    const inTurn = [...this.#course.known.values()].sort(
      (a, b) => Number(running.has(b.id)) - Number(running.has(a.id)),
    );
    for (const known of inTurn) {
      await this.#judgeContent(known);
      await this.#destroy(known.id);
    }
    await this.#judgeEnd();
  }

  #judgeAnswers(): void {
    const allowed =
      this.#course.profile.name === 'calm' ? [200, 201, 204, 404, 409, 429] : [500, 502, 503, 504];
    for (const { kind, sandbox, status, body } of this.#course.history) {
      const fine = status === undefined || status < 500 || allowed.includes(status);
      const cut = status === 503 && (kind === 'put' || kind === 'get');
      this.#check(fine || cut, `${kind} of ${sandbox} answered ${status} ${JSON.stringify(body)}`);
      this.#check(
        status !== 400 && status !== 401,
        `${kind} of ${sandbox} was refused: ${JSON.stringify(body)}`,
      );
    }
    if (this.#course.profile.name !== 'calm') return;
    for (const { id, autoResume } of this.#course.known.values()) {
      const about = this.#course.history.filter(({ sandbox }) => sandbox === id);
      const [made, ...rest] = about;
      if (made?.kind !== 'create' || rest.some(({ left }) => left)) continue;
      const why = explain(rest, { state: 'running', content: 0 }, autoResume);
      this.#check(why === undefined, `${id}: ${why}`);
    }
  }

  /** One round has brought rows and host together. Answers the ids of those that run. */
  async #judgeRows(): Promise<Set<string>> {
    const { body: rows } = await this.#course.get('GET', '/v1/sandboxes?limit=1000');
    const host = new Map(this.#course.world.host!.registry.all().map(({ id, state }) => [id, state.status]));
    for (const { id, status } of rows) {
      this.#check(
        host.get(id) === status,
        `the row of ${id} is ${status}, on the host it is ${host.get(id)}`,
      );
      host.delete(id);
    }
    for (const [id, status] of host) this.violations.push(`${id} is ${status} on the host and has no row`);
    const { body: templates } = await this.#course.get('GET', '/v1/snapshots?limit=1000');
    const heads = await this.#course.done(this.#course.world.plane!.plane.host.templates());
    this.#check(
      templates
        .map(({ id }: { id: string }) => id)
        .sort()
        .join() ===
        heads
          .map(({ id }) => id)
          .sort()
          .join(),
      `templates: rows ${JSON.stringify(templates)}, host ${heads.map(({ id, name }) => `${id} ${name}`)}`,
    );
    const running = rows.filter(({ status }: { status: string }) => status === 'running');
    return new Set(running.map(({ id }: { id: string }) => id));
  }

  /** Whatever happened, what was sealed is there. */
  async #judgeContent({ id, lastPut, autoResume }: Known): Promise<void> {
    const about = this.#course.history.filter(({ sandbox }) => sandbox === id);
    const found = await this.#course.get('GET', `/v1/sandboxes/${id}`);
    const destroyed = about.some(({ kind }) => kind === 'destroy');
    if (destroyed && (found.status === 404 || found.body.status === 'stopped')) return;
    this.#check(found.status === 200, `${id} answers ${found.status}`);
    const { status } = found.body;
    const seals = about.filter(
      ({ kind, status }) =>
        (kind === 'pause' && status === 200) || ((kind === 'snapshot' || kind === 'fork') && status === 201),
    );
    const wakes = autoResume ? ['resume', 'put', 'get'] : ['resume'];
    const resumes = about.filter(({ kind }) => wakes.includes(kind));
    const last = seals.at(-1);
    const isLast =
      last?.kind === 'pause' && resumes.every(({ end }) => end !== undefined && end < last.start);
    if (isLast)
      this.#check(status === 'paused', `${id} was paused and is ${status}: ${found.body.error_reason}`);
    if (this.#course.profile.name === 'calm' || this.#course.profile.name === 'faults') {
      const lost = this.#course.world.scheduler.trace.some((line) =>
        /((vmm|memory|disk):\w+|guest:thaw) FAILS/.test(line),
      );
      if (!lost) this.#check(status !== 'error', `${id} is error: ${found.body.error_reason}`);
    }
    if (status !== 'running') {
      const resumed = await this.#course.get('POST', `/v1/sandboxes/${id}/resume`);
      if (resumed.status === 409 && seals.length === 0 && status === 'error') return;
      this.#check(
        resumed.status === 200,
        `${id} was ${status} and resume answers ${JSON.stringify(resumed)}`,
      );
      if (resumed.status !== 200) return;
    }
    const read = await this.#course.get('POST', `/v1/sandboxes/${id}/exec`, { cmd: 'get' });
    this.#check(read.status === 200, `${id} does not answer: ${JSON.stringify(read)}`);
    // Numbers grow, so what was there at the last seal, or anything later, is fine.
    const acknowledged = about.filter((one) => one.kind === 'put' && one.status === 200);
    const before = (turn: number) =>
      Math.max(0, ...acknowledged.filter(({ end }) => end! < turn).map(({ value }) => value!));
    const steady = this.#course.profile.name === 'calm' || status === 'running';
    const least = Math.max(
      last === undefined ? 0 : before(last.start),
      steady && this.#isCalm() ? lastPut : 0,
    );
    const content = Number(read.body.stdout);
    this.#check(
      content >= least || this.#overtaken(about, content),
      `${id} has ${content}, at least ${least} was sealed`,
    );
  }

  #isCalm(): boolean {
    return this.#course.profile.name === 'calm';
  }

  /** Puts that overlap may be done in any order. */
  #overtaken(about: readonly Operation[], content: number): boolean {
    const put = about.find(({ kind, value }) => kind === 'put' && value === content);
    return (
      put !== undefined &&
      about.some(
        (one) =>
          one !== put && one.kind === 'put' && one.start <= (put.end ?? Infinity) && one.value! > content,
      )
    );
  }

  async #destroy(id: string): Promise<void> {
    const { status } = await this.#course.get('DELETE', `/v1/sandboxes/${id}`);
    this.#check(status === 204 || status === 404, `DELETE of ${id} answers ${status}`);
  }

  /** When all is destroyed, nothing is left. */
  async #judgeEnd(): Promise<void> {
    const { body: rows } = await this.#course.get('GET', '/v1/sandboxes?limit=1000');
    for (const id of rows.map((row: { id: string }) => row.id).sort()) await this.#destroy(id);
    const { body: templates } = await this.#course.get('GET', '/v1/snapshots?limit=1000&type=snapshot');
    for (const name of templates.map((template: { name: string }) => template.name).sort()) {
      const { status } = await this.#course.get('DELETE', `/v1/snapshots/${name}`);
      this.#check(status === 204, `DELETE of ${name} answers ${status}`);
    }
    const killed = this.#course.profile.killHost > 0;
    const remains = await this.#course.done(this.#course.world.remains(killed));
    if (remains.length > 0) this.violations.push(`left behind: ${remains.join(', ')}`);
  }
}
