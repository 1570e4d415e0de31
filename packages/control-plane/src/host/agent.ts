/** One host agent as the control plane sees it: its RPCs with a deadline each, and errors of our own catalogue. */
import http from 'node:http';
import type { MessageInitShape } from '@bufbuild/protobuf';
import {
  type CallOptions,
  type Client,
  createClient,
  type Interceptor,
  type Transport,
} from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { type NetworkPolicy, splitDomains, ThawError } from '@thaw/api';
import {
  type CreateSandboxRequestSchema,
  type ExecRequestSchema,
  type ExecResponse,
  type ExecStreamRequestSchema,
  type ExecStreamResponse,
  type FileEntry,
  type ForkedSandbox,
  fromConnectError,
  type GetHostResponse,
  HostAgentService,
  type ListDirRequestSchema,
  type MakeDirRequestSchema,
  type MoveFileRequestSchema,
  type ReadFileStreamRequestSchema,
  type RemoveFileRequestSchema,
  type ResizeTerminalRequestSchema,
  type Sample,
  type SandboxInfo,
  type SendInputRequestSchema,
  type StatFileRequestSchema,
  type StatSandboxResponse,
  type Template,
  type WatchDirRequestSchema,
  type WatchDirResponse,
  type WriteFileStreamRequestSchema,
} from '@thaw/api/rpc';
import type { Logger } from 'pino';
import { currentRequest, REQUEST_ID } from '../http/request.ts';

/** Longest time a host may take, in ms. An emulated guest boots slowly; a seal writes the memory it has to. */
export const DEADLINE_MS = {
  create: 180_000,
  resume: 180_000,
  pause: 300_000,
  snapshot: 300_000,
  fork: 480_000,
  destroy: 60_000,
  deleteSnapshot: 60_000,
  tag: 60_000,
  list: 15_000,
  facts: 5_000,
  network: 30_000,
  file: 75_000,
  removeFile: 300_000,
  signal: 10_000,
} as const;
const EXEC_DEFAULT_SEC = 30;
/** On top of the command's own limit, so that the host's answer about it arrives first. */
const EXEC_GRACE_MS = 15_000;
/** One message from a host: an exec's whole output is one, a file arrives in many. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;

export type CreateRequest = MessageInitShape<typeof CreateSandboxRequestSchema>;
export type ExecCall = MessageInitShape<typeof ExecRequestSchema>;
export type ExecStreamCall = MessageInitShape<typeof ExecStreamRequestSchema>;
export type InputCall = MessageInitShape<typeof SendInputRequestSchema>;
export type ReadCall = MessageInitShape<typeof ReadFileStreamRequestSchema>;
export type ResizeCall = MessageInitShape<typeof ResizeTerminalRequestSchema>;
export type StatFileCall = MessageInitShape<typeof StatFileRequestSchema>;
export type ListDirCall = MessageInitShape<typeof ListDirRequestSchema>;
export type MakeDirCall = MessageInitShape<typeof MakeDirRequestSchema>;
export type MoveFileCall = MessageInitShape<typeof MoveFileRequestSchema>;
export type RemoveFileCall = MessageInitShape<typeof RemoveFileRequestSchema>;
export type WatchDirCall = MessageInitShape<typeof WatchDirRequestSchema>;
export type WritePart = MessageInitShape<typeof WriteFileStreamRequestSchema>;

export interface HostAgent {
  facts(): Promise<GetHostResponse>;
  /** Its figures, in Prometheus' text format. */
  metrics(): Promise<string>;
  /**
   * What guests said of their load between two moments, in ms since 1970, oldest first; `latest`: only the last of each.
   * By sandbox; those that the host does not know are left out.
   */
  samples(
    ids: readonly string[],
    wish: { fromMs?: number | undefined; toMs?: number | undefined; latest?: boolean },
  ): Promise<Map<string, Sample[]>>;
  /** What a sandbox's console said last. */
  logs(id: string): Promise<string>;
  create(request: CreateRequest): Promise<SandboxInfo>;
  /** `diskOnly` keeps nothing that runs; `healthy` refuses a guest that does not answer. */
  pause(id: string, how: { diskOnly: boolean; healthy: boolean }): Promise<SandboxInfo>;
  /** `cold` boots the disk of the last build and leaves its memory; `buildId` is the build that it was started from. */
  resume(
    id: string,
    how: { network: NetworkPolicy; cold: boolean },
  ): Promise<{ info: SandboxInfo; buildId: string }>;
  /** New sandboxes that go on from where one is now; what became of each, in their order. */
  fork(id: string, children: CreateRequest[]): Promise<{ info: SandboxInfo; children: ForkedSandbox[] }>;
  /** What its guest may reach, from now on and after later resumes. */
  setNetwork(id: string, network: NetworkPolicy): Promise<SandboxInfo>;
  /** A sandbox that the host does not know counts as destroyed. */
  destroy(id: string): Promise<void>;
  list(): Promise<SandboxInfo[]>;
  stat(id: string): Promise<StatSandboxResponse>;
  exec(request: ExecCall): Promise<ExecResponse>;
  execStream(request: ExecStreamCall, signal: AbortSignal): AsyncIterable<ExecStreamResponse>;
  /** Resolves when the process has taken it, which may take as long as the process likes. */
  sendInput(request: InputCall, signal: AbortSignal): Promise<void>;
  resize(request: ResizeCall): Promise<void>;
  signal(id: string, pid: number, signal: 9 | 15): Promise<void>;
  /** The guest file is complete only if the last part says so. */
  writeFile(parts: AsyncIterable<WritePart>): Promise<void>;
  readFile(request: ReadCall, signal: AbortSignal): AsyncIterable<Uint8Array>;
  statFile(request: StatFileCall): Promise<FileEntry>;
  listDir(request: ListDirCall): Promise<FileEntry[]>;
  makeDir(request: MakeDirCall): Promise<FileEntry>;
  moveFile(request: MoveFileCall): Promise<FileEntry>;
  /** A whole tree; a path that does not exist is success. */
  removeFile(request: RemoveFileCall): Promise<void>;
  /** First `start`: what happens from then on is told. */
  watchDir(request: WatchDirCall, signal: AbortSignal): AsyncIterable<WatchDirResponse>;
  snapshot(
    id: string,
    templateId: string,
    name: string,
  ): Promise<{ template: Template; sandbox: SandboxInfo }>;
  /** Points the template `id` at the build of `sourceId` too. */
  tagTemplate(sourceId: string, id: string, name: string): Promise<Template>;
  deleteSnapshot(templateId: string): Promise<void>;
  templates(): Promise<Template[]>;
}

export function connectHost(socketPath: string, log: Logger): HostAgent {
  const over = (agent: http.Agent | false) =>
    createConnectTransport({
      httpVersion: '1.1',
      baseUrl: 'http://host-agent',
      nodeOptions: { socketPath, agent },
      readMaxBytes: MESSAGE_BYTES_MAX,
      acceptCompression: [],
      interceptors: [tellRequest],
    });
  // A connection for each verb: one kept from before an agent's restart would fail what must not be repeated. Calls of
  // the guest end with the agent anyway, and a new connection would be half of what they take.
  return hostOver(over(false), log, over(new http.Agent({ keepAlive: true })));
}

/** A host that is reached by any transport; commands and files may have one of their own. */
export function hostOver(transport: Transport, log: Logger, guestTransport = transport): HostAgent {
  const client = createClient(HostAgentService, transport);
  const guestClient = createClient(HostAgentService, guestTransport);
  const calls = new Calls(log);
  return {
    ...lifecycle(client, calls),
    ...guest(guestClient, calls),
    ...folders(guestClient, calls),
    ...templates(client, calls),
  };
}

/** A policy as the host takes it. */
export function toNetwork(policy: NetworkPolicy) {
  const { domains, ranges } = splitDomains(policy.allow_out);
  return {
    internet: policy.internet,
    allowOut: ranges,
    denyOut: policy.deny_out,
    allowDomains: domains,
    dnsServers: policy.dns_servers ?? [],
  };
}

type HostClient = Client<typeof HostAgentService>;

/** The host's log names the request too. */
const tellRequest: Interceptor = (next) => (call) => {
  const request = currentRequest();
  if (request !== undefined) call.header.set(REQUEST_ID, request.id);
  return next(call);
};

/** Deadlines and errors, the same for every RPC. */
class Calls {
  readonly #log: Logger;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Without `timeoutMs` the call may take as long as its stream goes on. */
  async unary<T>(
    label: string,
    timeoutMs: number | undefined,
    action: (options: CallOptions) => Promise<T>,
  ): Promise<T> {
    try {
      return await action(timeoutMs === undefined ? {} : { timeoutMs });
    } catch (error) {
      throw this.#failed(label, error);
    }
  }

  async *stream<T>(label: string, messages: AsyncIterable<T>): AsyncGenerator<T> {
    try {
      yield* messages;
    } catch (error) {
      throw this.#failed(label, error);
    }
  }

  /** As `unary`, where the host not knowing the thing is as good as done. */
  async gone(
    label: string,
    timeoutMs: number,
    action: (options: CallOptions) => Promise<unknown>,
  ): Promise<void> {
    try {
      await this.unary(label, timeoutMs, action);
    } catch (error) {
      if (!(error instanceof ThawError && error.kind === 'not_found')) throw error;
    }
  }

  #failed(label: string, error: unknown): ThawError {
    const known = fromConnectError(error);
    this.#log.warn({ err: error, rpc: label, kind: known.kind }, 'a call to the host failed');
    return known;
  }
}

function told<T>(value: T | undefined): T {
  if (value === undefined) throw new ThawError('agent_error', 'the host gave an incomplete answer');
  return value;
}

function lifecycle(client: HostClient, calls: Calls) {
  return {
    facts: () => calls.unary('facts', DEADLINE_MS.facts, (o) => client.getHost({}, o)),
    metrics: async () =>
      (await calls.unary('metrics', DEADLINE_MS.list, (o) => client.getMetrics({}, o))).text,
    samples: async (sandboxIds, { fromMs = 0, toMs = 0, latest = false }) => {
      const within = { fromUnixMs: BigInt(fromMs), toUnixMs: BigInt(toMs) };
      const request = { sandboxIds: [...sandboxIds], ...within, latest };
      const answer = await calls.unary('samples', DEADLINE_MS.list, (o) => client.getSamples(request, o));
      return new Map(answer.sandboxes.map(({ sandboxId, samples }) => [sandboxId, samples]));
    },
    logs: async (sandboxId) =>
      (await calls.unary('logs', DEADLINE_MS.list, (o) => client.getLogs({ sandboxId }, o))).text,
    create: async (request) =>
      told(
        (await calls.unary('create', DEADLINE_MS.create, (o) => client.createSandbox(request, o))).sandbox,
      ),
    pause: async (sandboxId, how) => {
      const request = { sandboxId, ...how };
      return told(
        (await calls.unary('pause', DEADLINE_MS.pause, (o) => client.pauseSandbox(request, o))).sandbox,
      );
    },
    resume: async (sandboxId, { network, cold }) => {
      const request = { sandboxId, network: toNetwork(network), cold };
      const answer = await calls.unary('resume', DEADLINE_MS.resume, (o) => client.resumeSandbox(request, o));
      return { info: told(answer.sandbox), buildId: answer.buildId };
    },
    fork: async (sandboxId, children) => {
      const request = { sandboxId, children };
      const answer = await calls.unary('fork', DEADLINE_MS.fork, (o) => client.forkSandbox(request, o));
      return { info: told(answer.sandbox), children: answer.children };
    },
    setNetwork: async (sandboxId, network) => {
      const request = { sandboxId, network: toNetwork(network) };
      return told(
        (await calls.unary('network', DEADLINE_MS.network, (o) => client.setNetwork(request, o))).sandbox,
      );
    },
    destroy: (sandboxId) =>
      calls.gone('destroy', DEADLINE_MS.destroy, (o) => client.destroySandbox({ sandboxId }, o)),
    list: async () =>
      (await calls.unary('list', DEADLINE_MS.list, (o) => client.listSandboxes({}, o))).sandboxes,
    stat: (sandboxId) => calls.unary('stat', DEADLINE_MS.list, (o) => client.statSandbox({ sandboxId }, o)),
  } satisfies Partial<HostAgent>;
}

function guest(client: HostClient, calls: Calls) {
  return {
    exec: (request) => {
      const timeoutMs = (request.timeoutSec || EXEC_DEFAULT_SEC) * 1000 + EXEC_GRACE_MS;
      return calls.unary('exec', timeoutMs, (o) => client.exec(request, o));
    },
    execStream: (request, signal) => calls.stream('exec stream', client.execStream(request, { signal })),
    sendInput: async (request, signal) => {
      await calls.unary('input', undefined, () => client.sendInput(request, { signal }));
    },
    resize: async (request) => {
      await calls.unary('resize', DEADLINE_MS.signal, (o) => client.resizeTerminal(request, o));
    },
    signal: async (sandboxId, pid, signal) => {
      await calls.unary('signal', DEADLINE_MS.signal, (o) =>
        client.signalProcess({ sandboxId, pid, signal }, o),
      );
    },
    writeFile: async (parts) => {
      await calls.unary('write file', undefined, (o) => client.writeFileStream(parts, o));
    },
    readFile: async function* (request, signal) {
      for await (const part of calls.stream('read file', client.readFileStream(request, { signal })))
        yield part.chunk;
    },
  } satisfies Partial<HostAgent>;
}

function folders(client: HostClient, calls: Calls) {
  return {
    statFile: async (request) =>
      told((await calls.unary('stat file', DEADLINE_MS.file, (o) => client.statFile(request, o))).entry),
    listDir: async (request) =>
      (await calls.unary('list folder', DEADLINE_MS.file, (o) => client.listDir(request, o))).entries,
    makeDir: async (request) =>
      told((await calls.unary('make folder', DEADLINE_MS.file, (o) => client.makeDir(request, o))).entry),
    moveFile: async (request) =>
      told((await calls.unary('move file', DEADLINE_MS.file, (o) => client.moveFile(request, o))).entry),
    removeFile: async (request) => {
      await calls.unary('remove file', DEADLINE_MS.removeFile, (o) => client.removeFile(request, o));
    },
    watchDir: (request, signal) => calls.stream('watch folder', client.watchDir(request, { signal })),
  } satisfies Partial<HostAgent>;
}

function templates(client: HostClient, calls: Calls) {
  return {
    snapshot: async (sandboxId, templateId, name) => {
      const request = { sandboxId, templateId, name };
      const answer = await calls.unary('snapshot', DEADLINE_MS.snapshot, (o) =>
        client.createSnapshot(request, o),
      );
      return { template: told(answer.template), sandbox: told(answer.sandbox) };
    },
    tagTemplate: async (sourceTemplateId, templateId, name) => {
      const request = { sourceTemplateId, templateId, name };
      return told(
        (await calls.unary('tag', DEADLINE_MS.tag, (o) => client.tagTemplate(request, o))).template,
      );
    },
    deleteSnapshot: (templateId) =>
      calls.gone('delete snapshot', DEADLINE_MS.deleteSnapshot, (o) =>
        client.deleteSnapshot({ templateId }, o),
      ),
    templates: async () =>
      (await calls.unary('templates', DEADLINE_MS.list, (o) => client.listTemplates({}, o))).templates,
  } satisfies Partial<HostAgent>;
}
