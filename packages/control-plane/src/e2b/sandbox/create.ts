/** Creates of the E2B API, of now (`/v2/sandboxes`) and of before (`/sandboxes`). */
import { createHash } from 'node:crypto';
import { type CreateSandbox, Env, Metadata, SANDBOX_LIMITS, ThawError } from '@thaw/api';
import { z } from 'zod';
import type { Owner } from '../../auth/quota.ts';
import { isTaken } from '../../db/connect.ts';
import type { Plane } from '../../plane.ts';
import { createSandbox, type E2bCreate } from '../../sandbox/create.ts';
import { findByKey, type SandboxRow } from '../../sandbox/table.ts';
import { newToken } from '../../sandbox/token.ts';
import { untilMoved } from '../../sandbox/until-moved.ts';
import { IngressWish, toIngress } from './ingress.ts';
import { EgressWish, toPolicy } from './network.ts';
import { stateOf } from './sandbox.ts';

/** Seconds. */
export const Ttl = z.int().min(1).max(SANDBOX_LIMITS.timeoutSec.max);

const Body = z.object({
  templateID: z.string().min(1).max(256),
  metadata: Metadata.nullish(),
  envVars: Env.nullish(),
  autoPause: z.boolean().nullish(),
  autoPauseMemory: z.boolean().nullish(),
  autoResume: z.object({ enabled: z.boolean().nullish() }).nullish(),
  allow_internet_access: z.boolean().nullish(),
  network: EgressWish.extend(IngressWish.shape).nullish(),
  iam: z.object({ tokens: z.record(z.string(), z.unknown()).nullish() }).nullish(),
  volumeMounts: z.array(z.unknown()).nullish(),
});

/** Always with a token for the guest agent. */
export const CreateV2 = Body.extend({ timeout: Ttl.default(300) }).transform((body) => ({
  ...body,
  secure: true,
}));
export const CreateV1 = Body.extend({ timeout: Ttl.default(15), secure: z.boolean().nullish() });
export type CreateWish = z.output<typeof CreateV2> | z.output<typeof CreateV1>;

/** `Idempotency-Key`: equal requests with the same one make one sandbox. */
export const IDEMPOTENCY_KEY = /^[a-z0-9-]{1,255}$/;

/** Answers when the guest does. Throws `conflict` for a key that came with another request, or whose sandbox is gone. */
export async function create(
  plane: Plane,
  owner: Owner,
  wish: CreateWish,
  key: string | undefined,
): Promise<SandboxRow> {
  const { native, e2b } = translate(wish, idempotencyOf(wish, key));
  for (;;) {
    const made = e2b.idempotency && (await madeBefore(plane, owner.teamId, e2b.idempotency));
    if (made !== undefined) return made;
    try {
      return (await createSandbox(plane, owner, native, e2b)).row;
    } catch (error) {
      // The same request, at the same time.
      if (e2b.idempotency === undefined || !isTaken(error)) throw error;
    }
  }
}

function idempotencyOf(wish: CreateWish, key: string | undefined): E2bCreate['idempotency'] {
  if (key === undefined) return undefined;
  if (!IDEMPOTENCY_KEY.test(key))
    throw new ThawError('invalid_request', `Idempotency-Key must match ${IDEMPOTENCY_KEY.source}`);
  return { key, hash: createHash('sha256').update(JSON.stringify(wish)).digest('hex') };
}

/** Undefined: nothing was made with it, or what was to be made could not be. */
async function madeBefore(
  plane: Plane,
  teamId: string,
  { key, hash }: NonNullable<E2bCreate['idempotency']>,
): Promise<SandboxRow | undefined> {
  const known = await findByKey(plane.db, teamId, key);
  if (known === undefined) return undefined;
  if (known.idempotency_hash !== hash)
    throw new ThawError('conflict', 'this Idempotency-Key came with another request before');
  const row = known.status === 'pending' ? await untilMoved(plane, known) : known;
  if (row !== undefined && stateOf(row.status) === undefined)
    throw new ThawError('conflict', `the sandbox of this Idempotency-Key is ${row.status}`);
  return row;
}

function translate(
  wish: CreateWish,
  idempotency: E2bCreate['idempotency'],
): { native: CreateSandbox; e2b: E2bCreate } {
  check(wish);
  const { network, allow_internet_access: allowInternet = null } = wish;
  const ingress = network ? toIngress(network) : {};
  const isPrivate = ingress.allow_public_traffic === false;
  return {
    native: {
      template: wish.templateID,
      metadata: wish.metadata ?? {},
      env: wish.envVars ?? {},
      timeout_sec: 0,
      on_timeout: wish.autoPause ? 'pause' : 'kill',
      auto_resume: wish.autoResume?.enabled ?? false,
      network: toPolicy(network ?? {}, allowInternet),
    },
    e2b: {
      ttlSec: wish.timeout,
      pauseMemory: wish.autoPauseMemory ?? true,
      open: !wish.secure,
      trafficToken: isPrivate ? newToken() : null,
      ingress,
      allowInternet,
      idempotency,
    },
  };
}

function check({ autoPause, autoPauseMemory, autoResume, iam, volumeMounts, network, secure }: CreateWish) {
  const refuse = (message: string) => {
    throw new ThawError('invalid_request', message);
  };
  if (autoPauseMemory === false && !autoPause) refuse('autoPauseMemory: false needs autoPause');
  if (autoPauseMemory === false && autoResume?.enabled)
    refuse(
      'autoPauseMemory: false and autoResume exclude each other: traffic wakes nothing without its memory',
    );
  if (iam?.tokens && Object.keys(iam.tokens).length > 0) refuse('iam is not supported');
  if (volumeMounts && volumeMounts.length > 0) refuse('volumeMounts are not supported');
  if (network?.allowPublicTraffic === false && !secure)
    refuse('network.allowPublicTraffic: false needs secure: true');
}
