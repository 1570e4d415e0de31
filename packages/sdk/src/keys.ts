/** Keys and quotas: for keys that may administrate. Teams and their keys: for operators. */
import type {
  ApiKeyInfo,
  ChangeTeamInput,
  CreatedKey,
  CreatedTeam,
  CreateKeyInput,
  CreateTeamInput,
  TeamInfo,
  UpdateKeyInput,
  UpdateTeamInput,
} from '@thaw/api';
import { type Connection, json, send } from './http.ts';

export class Keys {
  readonly #to: Connection;
  readonly #path: string;

  constructor(to: Connection, path = '/v1/keys') {
    this.#to = to;
    this.#path = path;
  }

  /** The answer holds the key; no other ever does. */
  create(wish: CreateKeyInput): Promise<CreatedKey> {
    return json(this.#to, 'POST', this.#path, { json: wish });
  }

  /** Oldest first, with what their sandboxes take now. */
  list(): Promise<ApiKeyInfo[]> {
    return json(this.#to, 'GET', this.#path);
  }

  /** What `change` leaves out stays as it is; null takes a limit away. */
  update(id: string, change: UpdateKeyInput): Promise<ApiKeyInfo> {
    return json(this.#to, 'PATCH', this.#one(id), { json: change });
  }

  /** Its sandboxes go on. */
  async revoke(id: string): Promise<void> {
    await send(this.#to, 'DELETE', this.#one(id));
  }

  #one(id: string): string {
    return `${this.#path}/${encodeURIComponent(id)}`;
  }
}

/** All keys together. */
export class Team {
  readonly #to: Connection;

  constructor(to: Connection) {
    this.#to = to;
  }

  get(): Promise<TeamInfo> {
    return json(this.#to, 'GET', '/v1/team');
  }

  update(change: UpdateTeamInput): Promise<TeamInfo> {
    return json(this.#to, 'PATCH', '/v1/team', { json: change });
  }
}

/** All teams, each by its name or id. */
export class Teams {
  readonly #to: Connection;

  constructor(to: Connection) {
    this.#to = to;
  }

  /** The answer holds the team's first key; no other ever does. */
  create(wish: CreateTeamInput): Promise<CreatedTeam> {
    return json(this.#to, 'POST', '/v1/teams', { json: wish });
  }

  /** Oldest first, with what their sandboxes take now. */
  list(): Promise<TeamInfo[]> {
    return json(this.#to, 'GET', '/v1/teams');
  }

  get(team: string): Promise<TeamInfo> {
    return json(this.#to, 'GET', teamPath(team));
  }

  /** What `change` leaves out stays as it is; null takes a limit away. */
  update(team: string, change: ChangeTeamInput): Promise<TeamInfo> {
    return json(this.#to, 'PATCH', teamPath(team), { json: change });
  }

  /** `conflict` while it has sandboxes or templates, unless `force` destroys them first. */
  async delete(team: string, { force = false }: { force?: boolean } = {}): Promise<void> {
    await send(this.#to, 'DELETE', teamPath(team), { query: { force: force ? 'true' : undefined } });
  }

  keys(team: string): Keys {
    return new Keys(this.#to, `${teamPath(team)}/keys`);
  }
}

const teamPath = (team: string): string => `/v1/teams/${encodeURIComponent(team)}`;
