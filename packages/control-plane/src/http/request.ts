/** The request that is being answered: whatever is done for it, also at the host, can name it and who sent it. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

export const REQUEST_ID = 'x-request-id';
/** What a client may choose: it is written into logs and headers as it is. */
const CHOSEN = /^[A-Za-z0-9_-]{1,64}$/;

export interface CurrentRequest {
  id: string;
  /** The first characters of the key that it came with. */
  actor: string;
  /** Ids and names of what it is about, besides those in its path. */
  targets?: string[];
  /** The id of the team that it is about, if that is not the caller's. */
  aboutTeam?: string;
}

const requests = new AsyncLocalStorage<CurrentRequest>();

export function requestId({ headers }: Pick<IncomingMessage, 'headers'>): string {
  const chosen = headers[REQUEST_ID];
  return typeof chosen === 'string' && CHOSEN.test(chosen) ? chosen : randomUUID();
}

/** Undefined for what Thaw does of its own accord. */
export function currentRequest(): CurrentRequest | undefined {
  return requests.getStore();
}

/** The request made this, or is about it: for the audit log. */
export function noteTarget(idOrName: string): void {
  const request = requests.getStore();
  if (request) request.targets = [...(request.targets ?? []), idOrName];
}

/** The request is about another team than the caller's: for the audit log. */
export function aboutTeam(teamId: string): void {
  const request = requests.getStore();
  if (request) request.aboutTeam = teamId;
}

/** `work`, and all that follows from it, belongs to `request`. */
export function duringRequest<T>(request: CurrentRequest, work: () => T): T {
  return requests.run(request, work);
}

/** What `work` starts goes on for its own sake: a timer, for instance, that a request sets for later. */
export function apartFromRequest<T>(work: () => T): T {
  return requests.exit(work);
}

/** For a logger's `mixin`. */
export function requestFields(): { request_id?: string } {
  const id = requests.getStore()?.id;
  return id === undefined ? {} : { request_id: id };
}
