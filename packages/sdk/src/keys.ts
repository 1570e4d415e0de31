/** Keys and quotas: for keys that may administrate. */
import type {
  ApiKeyInfo,
  CreatedKey,
  CreateKeyInput,
  TeamInfo,
  UpdateKeyInput,
  UpdateTeamInput,
} from '@thaw/api';
import { type Connection, send } from './http.ts';

const keyPath = (id: string): string => `/v1/keys/${encodeURIComponent(id)}`;

export class Keys {
  readonly #to: Connection;

  constructor(to: Connection) {
    this.#to = to;
  }

  /** The answer holds the key; no other ever does. */
  async create(wish: CreateKeyInput): Promise<CreatedKey> {
    return (await send(this.#to, 'POST', '/v1/keys', { json: wish })).json() as Promise<CreatedKey>;
  }

  /** Oldest first, with what their sandboxes take now. */
  async list(): Promise<ApiKeyInfo[]> {
    return (await send(this.#to, 'GET', '/v1/keys')).json() as Promise<ApiKeyInfo[]>;
  }

  /** What `change` leaves out stays as it is; null takes a limit away. */
  async update(id: string, change: UpdateKeyInput): Promise<ApiKeyInfo> {
    return (await send(this.#to, 'PATCH', keyPath(id), { json: change })).json() as Promise<ApiKeyInfo>;
  }

  /** Its sandboxes go on. */
  async revoke(id: string): Promise<void> {
    await send(this.#to, 'DELETE', keyPath(id));
  }
}

/** All keys together. */
export class Team {
  readonly #to: Connection;

  constructor(to: Connection) {
    this.#to = to;
  }

  async get(): Promise<TeamInfo> {
    return (await send(this.#to, 'GET', '/v1/team')).json() as Promise<TeamInfo>;
  }

  async update(change: UpdateTeamInput): Promise<TeamInfo> {
    return (await send(this.#to, 'PATCH', '/v1/team', { json: change })).json() as Promise<TeamInfo>;
  }
}
