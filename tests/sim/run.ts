/** One run: clients, faults and kills as its seed says, then peace, and what must hold then. */
import { hash } from 'node:crypto';
import type pg from 'pg';
import { Clock } from './clock.ts';
import { Course } from './course.ts';
import { Entropy } from './entropy.ts';
import { Judge } from './judge.ts';
import { PROFILES, type Profile } from './profile.ts';
import { Random } from './random.ts';
import { Scheduler } from './scheduler.ts';
import { World } from './world.ts';

export interface Outcome {
  seed: number;
  profile: Profile['name'];
  operations: number;
  turns: number;
  /** Of what happened, in its order. */
  digest: string;
  violations: string[];
  trace: string[];
}

export async function run(seed: number, pool: pg.Pool, key: string): Promise<Outcome> {
  await pool.query('truncate sandboxes, templates, builds cascade');
  const profile = PROFILES[seed % PROFILES.length]!;
  const random = new Random(seed);
  const scheduler = new Scheduler(random);
  using _ = new Entropy(new Random(seed + 1));
  using clock = new Clock();
  using world = new World(scheduler, clock, pool);
  const course = new Course(world, random, profile, key);
  const judge = new Judge(course);
  try {
    await course.play();
    await judge.judge();
  } catch (error) {
    judge.violations.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  const ids = new Map<string, string>();
  // Names that are drawn by the shipped code, not by the seed, are told by their order.
  const trace = scheduler.trace.map((line) =>
    line.replace(/\b(sb|tpl)[a-z0-9]{20}\b|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, (id) => {
      if (!ids.has(id)) ids.set(id, `#${ids.size}`);
      return ids.get(id)!;
    }),
  );
  return {
    seed,
    profile: profile.name,
    operations: course.history.length,
    turns: course.turns,
    digest: hash('sha256', trace.join('\n')).slice(0, 16),
    violations: [...judge.violations, ...world.room.violations],
    trace,
  };
}
