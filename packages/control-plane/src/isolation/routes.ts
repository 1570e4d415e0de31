/** For tests: every route of the server, with how it is tried with what belongs to another team. */
/** Ids and names of one owner, or of nobody. */
export interface Things {
  running: string;
  paused: string;
  template: string;
  templateName: string;
  key: string;
  team: string;
  teamName: string;
}

export interface Attempt {
  path: string;
  body?: unknown;
  /** Sent as it is, with its own content type. */
  form?: FormData;
}

/** How a route is tried with somebody's things. */
export type Tries = (things: Things) => Attempt[];

const at = (path: string, body?: unknown): Attempt => ({ path, body });
const each = (things: Things, path: string, body?: unknown): Attempt[] =>
  [things.running, things.paused].map((id) => at(path.replace(':id', id), body));
const onSandbox =
  (path: string, ...bodies: unknown[]): Tries =>
  (things) =>
    (bodies.length > 0 ? bodies : [undefined]).flatMap((body) => each(things, path, body));
const form = (path: string): Tries => {
  return ({ running, paused }) =>
    [running, paused].map((id) => {
      const fields = new FormData();
      fields.set('path', '/root/x');
      fields.set('file', new Blob(['text']), 'x');
      return { path: path.replace(':id', id), form: fields };
    });
};
const onTeam =
  (path: string, body?: unknown): Tries =>
  ({ team, teamName, key }) =>
    [team, teamName].map((name) => at(path.replace(':team', name).replace(':id', key), body));
const onPath = { path: '/root/x' };

/** By id and name, with and without a tag, bare and in the namespace of its team. */
const ofTemplate =
  (attempt: (name: string) => Attempt): Tries =>
  ({ template, templateName, team }) =>
    [
      ...[template, templateName, `${templateName}:v1`, `${template}:v1`],
      ...[`${team}/${templateName}`, `${team}/${template}:v1`],
    ].map((name) => {
      const tried = attempt(name);
      // In a path it is one segment.
      return { ...tried, path: tried.path.replace(name, encodeURIComponent(name)) };
    });

/** What has no id in it, and must tell of nothing that is another team's. */
const lists =
  (path: string, ...queries: string[]): Tries =>
  () =>
    ['', ...queries].map((query) => at(path + query));

const V1 = '/v1/sandboxes/:id';
const E2B = '/sandboxes/:id';

/** What is not done for anybody. */
export const UNSUPPORTED: readonly string[] = [
  ...['POST /templates', 'POST /v2/templates', 'POST /v3/templates', 'POST /templates/:id'],
  ...['POST /templates/:id/builds/:build', 'POST /v2/templates/:id/builds/:build'],
  ...['GET /templates/:id/builds/:build/status', 'GET /templates/:id/builds/:build/logs'],
  ...['GET /templates/:id/files/:hash', 'GET /volumes', 'POST /volumes'],
  ...['GET /volumes/:id', 'DELETE /volumes/:id', 'GET /secrets', 'POST /secrets'],
  ...['GET', 'POST', 'DELETE'].map((method) => `${method} /secrets/:id`),
  ...['path', 'dir', 'file'].flatMap((kind) =>
    ['GET', 'PUT', 'POST', 'PATCH', 'DELETE'].map((method) => `${method} /volumecontent/:id/${kind}`),
  ),
];

/** A route that is not here fails the test: whoever adds one says how it can be tried with another team's things. */
export const ROUTES: Record<string, Tries> = {
  // First: later it tells of what the test itself has asked for.
  'GET /v1/audit': ({ running, key, teamName }) =>
    ['', '?limit=1000', `?target=${running}`, `?key=${key}`, `?team=${teamName}`].map((query) =>
      at(`/v1/audit${query}`),
    ),

  'GET /healthz': lists('/healthz'),
  'GET /health': lists('/health'),
  'GET /readyz': lists('/readyz'),
  'GET /openapi.yaml': lists('/openapi.yaml'),
  'GET /docs': lists('/docs'),
  'GET /metrics': lists('/metrics'),

  'POST /v1/sandboxes': ({ template, templateName }) =>
    [template, templateName].map((name) => at('/v1/sandboxes', { template: name })),
  'GET /v1/sandboxes': ({ templateName }) => [
    ...lists('/v1/sandboxes', '?status=running,paused,stopped,error', '?limit=1000')(undefined as never),
    at(`/v1/sandboxes?template=${templateName}`),
    at('/v1/sandboxes?metadata=of%3Da'),
  ],
  [`GET ${V1}`]: onSandbox(V1),
  [`GET ${V1}/stats`]: onSandbox(`${V1}/stats`),
  [`PATCH ${V1}`]: onSandbox(V1, { timeout_sec: 1 }, { network: { internet: false } }),
  [`DELETE ${V1}`]: onSandbox(V1),
  [`POST ${V1}/pause`]: onSandbox(`${V1}/pause`),
  [`POST ${V1}/resume`]: onSandbox(`${V1}/resume`, undefined, { memory: false }),
  [`POST ${V1}/fork`]: onSandbox(`${V1}/fork`, undefined, { count: 2 }),
  [`POST ${V1}/exec`]: onSandbox(`${V1}/exec`, { cmd: 'true' }),
  [`GET ${V1}/exec/stream`]: onSandbox(`${V1}/exec/stream`),
  [`GET ${V1}/events`]: onSandbox(`${V1}/events`),
  [`GET ${V1}/logs`]: onSandbox(`${V1}/logs`),
  [`POST ${V1}/files/read`]: onSandbox(`${V1}/files/read`, onPath),
  [`POST ${V1}/files/stream/read`]: onSandbox(`${V1}/files/stream/read`, onPath),
  [`POST ${V1}/files/write`]: form(`${V1}/files/write`),
  [`POST ${V1}/files/stream/write`]: form(`${V1}/files/stream/write`),
  [`POST ${V1}/files/stat`]: onSandbox(`${V1}/files/stat`, onPath),
  [`POST ${V1}/files/list`]: onSandbox(`${V1}/files/list`, onPath),
  [`POST ${V1}/files/mkdir`]: onSandbox(`${V1}/files/mkdir`, onPath),
  [`POST ${V1}/files/move`]: onSandbox(`${V1}/files/move`, { source: '/root/x', destination: '/root/y' }),
  [`POST ${V1}/files/remove`]: onSandbox(`${V1}/files/remove`, onPath),
  [`POST ${V1}/files/watch`]: onSandbox(`${V1}/files/watch`, onPath),

  'POST /v1/snapshots': ({ running, paused }) =>
    [running, paused].flatMap((sandbox_id) => [
      at('/v1/snapshots', { sandbox_id }),
      at('/v1/snapshots', { sandbox_id, name: 'taken' }),
      at('/v1/snapshots?overwrite=true', { sandbox_id, name: 'taken', warm_up: { run: ['true'] } }),
    ]),
  'GET /v1/snapshots': lists('/v1/snapshots', '?type=snapshot', '?limit=1000'),
  'DELETE /v1/snapshots/:name': ({ template, templateName }) =>
    [template, templateName].map((name) => at(`/v1/snapshots/${name}`)),

  'POST /v1/keys': lists('/v1/keys'),
  'GET /v1/keys': lists('/v1/keys'),
  'PATCH /v1/keys/:id': ({ key }) => [at(`/v1/keys/${key}`, { name: 'mine', quota: { sandboxes: 0 } })],
  'DELETE /v1/keys/:id': ({ key }) => [at(`/v1/keys/${key}`)],
  'GET /v1/team': lists('/v1/team'),
  'PATCH /v1/team': () => [at('/v1/team', { quota: {} })],
  'POST /v1/teams': ({ teamName }) => [at('/v1/teams', { name: teamName })],
  'GET /v1/teams': lists('/v1/teams'),
  'GET /v1/teams/:team': onTeam('/v1/teams/:team'),
  'PATCH /v1/teams/:team': onTeam('/v1/teams/:team', { granted: { sandboxes: 0 }, name: 'mine' }),
  'DELETE /v1/teams/:team': ({ team, teamName }) =>
    [team, teamName].flatMap((name) => [at(`/v1/teams/${name}`), at(`/v1/teams/${name}?force=true`)]),
  'POST /v1/teams/:team/keys': onTeam('/v1/teams/:team/keys', { name: 'mine' }),
  'GET /v1/teams/:team/keys': onTeam('/v1/teams/:team/keys'),
  'PATCH /v1/teams/:team/keys/:id': onTeam('/v1/teams/:team/keys/:id', { name: 'mine' }),
  'DELETE /v1/teams/:team/keys/:id': onTeam('/v1/teams/:team/keys/:id'),

  'POST /v2/sandboxes': ofTemplate((templateID) => at('/v2/sandboxes', { templateID })),
  'POST /sandboxes': ofTemplate((templateID) => at('/sandboxes', { templateID })),
  'GET /v2/sandboxes': ({ template, templateName }) => [
    ...lists('/v2/sandboxes', '?state=running,paused', '?limit=100&order=asc')(undefined as never),
    ...[template, templateName].map((name) => at(`/v2/sandboxes?template=${name}`)),
  ],
  'GET /sandboxes': lists('/sandboxes', '?metadata=of%3Da'),
  [`GET ${E2B}`]: onSandbox(E2B),
  [`DELETE ${E2B}`]: onSandbox(E2B),
  [`POST ${E2B}/pause`]: onSandbox(`${E2B}/pause`, undefined, { memory: false }),
  [`POST ${E2B}/connect`]: onSandbox(`${E2B}/connect`, { timeout: 60 }),
  [`POST /v2${E2B}/connect`]: onSandbox(`/v2${E2B}/connect`, { timeout: 60 }, { memory: false }),
  [`POST ${E2B}/resume`]: onSandbox(`${E2B}/resume`, { timeout: 60 }),
  [`POST ${E2B}/timeout`]: onSandbox(`${E2B}/timeout`, { timeout: 0 }),
  [`POST ${E2B}/refreshes`]: onSandbox(`${E2B}/refreshes`, { duration: 60 }),
  [`PUT ${E2B}/network`]: onSandbox(`${E2B}/network`, {}, { allow_internet_access: false }),
  [`GET ${E2B}/logs`]: onSandbox(`${E2B}/logs`),
  [`GET /v2${E2B}/logs`]: onSandbox(`/v2${E2B}/logs`),
  [`GET ${E2B}/metrics`]: onSandbox(`${E2B}/metrics`),
  'GET /sandboxes/metrics': ({ running, paused }) => [
    at(`/sandboxes/metrics?sandbox_ids=${running}`),
    at(`/sandboxes/metrics?sandbox_ids=${running},${paused}`),
  ],
  [`POST ${E2B}/fork`]: onSandbox(`${E2B}/fork`, undefined, { count: 2, timeout: 60 }),
  [`POST ${E2B}/snapshots`]: onSandbox(`${E2B}/snapshots`, undefined, { name: 'taken' }),
  'GET /snapshots': ({ running, template, templateName }) =>
    ['', `?sandboxID=${running}`, `?name=${template}`, `?name=${templateName}`].map((query) =>
      at(`/snapshots${query}`),
    ),
  'GET /templates': lists('/templates'),
  'GET /v2/templates': lists('/v2/templates', '?limit=100'),
  'GET /templates/:id': ofTemplate((name) => at(`/templates/${name}`)),
  'DELETE /templates/:id': ofTemplate((name) => at(`/templates/${name}`)),
  'PATCH /templates/:id': ofTemplate((name) => at(`/templates/${name}`, { public: false })),
  'PATCH /v2/templates/:id': ofTemplate((name) => at(`/v2/templates/${name}`, { public: false })),
  'GET /templates/aliases/:id': ofTemplate((name) => at(`/templates/aliases/${name}`)),
  'GET /templates/:id/tags': ofTemplate((name) => at(`/templates/${name}/tags`)),
  'POST /templates/tags': ofTemplate((target) => at('/templates/tags', { target, tags: ['mine'] })),
  'DELETE /templates/tags': ofTemplate((name) => at('/templates/tags', { name, tags: ['v1'] })),
  'GET /teams': lists('/teams'),

  ...Object.fromEntries(
    UNSUPPORTED.map((route) => [
      route,
      ofTemplate((name) => at(route.split(' ')[1]!.replace(/:[a-z]+/g, name))),
    ]),
  ),
};
