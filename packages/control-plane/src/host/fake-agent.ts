/**
 * A small host agent for tests: real RPC on a real Unix socket, sandboxes that are entries of a map, commands that run
 * on this machine, files kept in memory. Each RPC can be told to fail or to hold.
 */
import type { ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { create } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { ThawError, told } from '@thaw/api';
import {
  HostAgentService,
  type Sample,
  type SandboxInfo,
  SandboxInfoSchema,
  type Template,
  toConnectError,
} from '@thaw/api/rpc';
import { execStreamFake, runFake } from './fake-exec.ts';
import { fakeFiles } from './fake-files.ts';
import { addTemplate, fakeTemplates } from './fake-templates.ts';

type Rpc = keyof ServiceImpl<typeof HostAgentService>;

export class FakeAgent implements AsyncDisposable {
  readonly socketPath: string;
  readonly sandboxes = new Map<string, SandboxInfo>();
  readonly templates = new Map<string, Template>();
  readonly files = new Map<string, Buffer>();
  /** What guests said of their load, oldest first. */
  readonly samples = new Map<string, Sample[]>();
  /** What consoles said, if not what they always say. */
  readonly logs = new Map<string, string>();
  /** Of terminals, columns and rows, in the order they were asked for. */
  readonly sizes: [number, number][] = [];
  /** Folders being watched. */
  watches = 0;
  /** RPCs in the order they came. */
  readonly calls: Rpc[] = [];
  readonly processes = new Map<number, ChildProcess>();
  /** What the last create was asked for. */
  lastCreate: Parameters<ServiceImpl<typeof HostAgentService>['createSandbox']>[0] | undefined;
  /** Where its sandboxes are: those that were made, and those that were resumed. */
  hostIps: [string, string] = ['10.11.0.1', '10.11.0.2'];
  lastPause: Parameters<ServiceImpl<typeof HostAgentService>['pauseSandbox']>[0] | undefined;
  lastResume: Parameters<ServiceImpl<typeof HostAgentService>['resumeSandbox']>[0] | undefined;
  readonly #faults = new Map<Rpc, Error[]>();
  readonly #holds = new Map<Rpc, PromiseWithResolvers<void>>();
  /** As the real one, it never closes an idle connection that a call is about to use. */
  readonly #server = createServer({ keepAliveTimeout: 0 });

  constructor(socketPath: string) {
    this.socketPath = socketPath;
    for (const name of ['minimal', 'base'])
      addTemplate(this.templates, { id: name, name, type: 'base', diskMb: 1024 });
  }

  async listen(): Promise<this> {
    const adapter = connectNodeAdapter({
      routes: (router) => void router.service(HostAgentService, this.#service()),
      acceptCompression: [],
    });
    this.#server.on('request', adapter);
    return this.reopen();
  }

  /** Listens again after it was disposed of: an agent that was restarted and still knows its sandboxes. */
  async reopen(): Promise<this> {
    this.#server.listen(this.socketPath);
    await once(this.#server, 'listening');
    return this;
  }

  /** The next call of `rpc` fails with `error`, before it does anything. */
  failNext(rpc: Rpc, error: Error): void {
    this.#faults.set(rpc, [...(this.#faults.get(rpc) ?? []), error]);
  }

  /** Calls of `rpc` wait until the returned function is called. */
  hold(rpc: Rpc): () => void {
    const hold = Promise.withResolvers<void>();
    this.#holds.set(rpc, hold);
    return () => {
      this.#holds.delete(rpc);
      hold.resolve();
    };
  }

  /** Nothing waits any more, as when a test failed before it let go. */
  release(): void {
    for (const hold of this.#holds.values()) hold.resolve();
    this.#holds.clear();
  }

  count(rpc: Rpc): number {
    return this.calls.filter((call) => call === rpc).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.processes.values()) child.kill('SIGKILL');
    if (!this.#server.listening) return;
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #enter(rpc: Rpc): Promise<void> {
    this.calls.push(rpc);
    await this.#holds.get(rpc)?.promise;
    const fault = this.#faults.get(rpc)?.shift();
    if (fault) throw toConnectError(fault);
  }

  #require(id: string, ...statuses: string[]): SandboxInfo {
    const sandbox = this.sandboxes.get(id);
    if (!sandbox) throw toConnectError(new ThawError('not_found', `sandbox ${id} is not on this host`));
    if (statuses.length > 0 && !statuses.includes(sandbox.status)) {
      throw toConnectError(new ThawError('invalid_state', `sandbox ${id} is ${sandbox.status}`));
    }
    return sandbox;
  }

  #seal(sandbox: SandboxInfo): void {
    sandbox.build = {
      $typeName: 'hostagent.v1.Build',
      id: randomUUID(),
      generation: sandbox.build ? sandbox.build.generation + 1 : 0,
      storedBytes: 4096n,
      memoryStoredBytes: 4096n,
      diskStoredBytes: 0n,
      guestUnresponsive: false,
    };
  }

  #service(): ServiceImpl<typeof HostAgentService> {
    return {
      ...this.#lifecycle(),
      ...fakeTemplates(this.templates, {
        enter: (rpc) => this.#enter(rpc),
        seal: (sandboxId) => {
          const sandbox = this.#require(sandboxId, 'running', 'paused');
          this.#seal(sandbox);
          return sandbox;
        },
      }),
      ...this.#guestCalls(),
      statSandbox: async ({ sandboxId }) => {
        await this.#enter('statSandbox');
        const { memoryMb } = this.#require(sandboxId, 'running');
        const memoryBytes = BigInt(memoryMb) * 1024n * 1024n;
        return {
          memoryBytes,
          residentBytes: 4096n,
          pagesFaulted: 1n,
          pagesTotal: memoryBytes / 4096n,
          pids: { vmm: 1 },
        };
      },
      getLogs: async ({ sandboxId }) => {
        await this.#enter('getLogs');
        const booted = `${this.#require(sandboxId).sandboxId} booted\n`;
        return { text: this.logs.get(sandboxId) ?? booted };
      },
      getMetrics: async () => {
        await this.#enter('getMetrics');
        return { text: `# TYPE thaw_host_sandboxes gauge\nthaw_host_sandboxes ${this.sandboxes.size}\n` };
      },
      getSamples: async ({ sandboxIds, latest, fromUnixMs, toUnixMs }) => {
        await this.#enter('getSamples');
        const told = sandboxIds.flatMap((sandboxId) => {
          const all = this.samples.get(sandboxId) ?? [];
          const within = all.filter(
            ({ unixMs }) => unixMs >= fromUnixMs && (toUnixMs === 0n || unixMs <= toUnixMs),
          );
          return this.sandboxes.has(sandboxId)
            ? [{ sandboxId, samples: latest ? all.slice(-1) : within }]
            : [];
        });
        return { sandboxes: told };
      },
      getHost: async () => {
        await this.#enter('getHost');
        return { vcpusMax: 8, memoryMbMax: 16_384, isolation: 'emulated', vmm: 'qemu', slotsTotal: 16 };
      },
    };
  }

  #lifecycle() {
    return {
      createSandbox: async (request) => {
        await this.#enter('createSandbox');
        this.lastCreate = request;
        const template = this.templates.get(request.template);
        if (!template)
          throw toConnectError(new ThawError('not_found', `template ${request.template} is not here`));
        const sandbox = create(SandboxInfoSchema, {
          sandboxId: request.sandboxId,
          status: 'running',
          template: request.template,
          vcpus: request.vcpus,
          memoryMb: request.memoryMb,
          diskMb: request.diskMb,
          hostIp: this.hostIps[0],
          isolation: 'emulated',
          vmm: 'qemu',
          backend: 'uffd',
          build: template.build,
          timingsMs: { 'create:boot': 1.5 },
          network: request.network ?? { internet: true },
          createdAtUnix: BigInt(Math.floor(Date.now() / 1000)),
          accessToken: request.open ? '' : randomUUID(),
        });
        this.sandboxes.set(request.sandboxId, sandbox);
        return { sandbox };
      },
      destroySandbox: async (request) => {
        await this.#enter('destroySandbox');
        this.#require(request.sandboxId);
        this.sandboxes.delete(request.sandboxId);
        return {};
      },
      pauseSandbox: async (request) => {
        await this.#enter('pauseSandbox');
        const sandbox = this.#require(request.sandboxId, 'running');
        this.#seal(sandbox);
        sandbox.status = 'paused';
        sandbox.diskOnly = request.diskOnly;
        this.lastPause = request;
        sandbox.hostIp = '';
        return { sandbox };
      },
      resumeSandbox: async (request) => {
        await this.#enter('resumeSandbox');
        const sandbox = this.#require(request.sandboxId, 'paused', 'error');
        sandbox.status = 'running';
        sandbox.hostIp = this.hostIps[1];
        sandbox.diskOnly = false;
        if (request.network !== undefined) sandbox.network = request.network;
        this.lastResume = request;
        return { sandbox, buildId: sandbox.build?.id ?? 'base' };
      },
      forkSandbox: async (request) => {
        await this.#enter('forkSandbox');
        const source = this.#require(request.sandboxId, 'running', 'paused');
        if (source.status === 'running') this.#seal(source);
        const children = request.children.map(({ sandboxId, network }) => {
          const fault = this.#faults.get('createSandbox')?.shift();
          if (fault) {
            const { code, message } = told(fault);
            return { errorKind: code, errorMessage: message };
          }
          const sandbox = create(SandboxInfoSchema, {
            ...{ ...source, sandboxId, status: 'running' },
            accessToken: source.accessToken === '' ? '' : randomUUID(),
          });
          if (network !== undefined) sandbox.network = network;
          this.sandboxes.set(sandboxId, sandbox);
          return { sandbox };
        });
        return { sandbox: source, children };
      },
      setNetwork: async (request) => {
        await this.#enter('setNetwork');
        const sandbox = this.#require(request.sandboxId);
        sandbox.network = request.network!;
        return { sandbox };
      },
      listSandboxes: async () => {
        await this.#enter('listSandboxes');
        return { sandboxes: [...this.sandboxes.values()] };
      },
    } satisfies Partial<ServiceImpl<typeof HostAgentService>>;
  }

  #guestCalls() {
    const processOf = (pid: number): ChildProcess => {
      const child = this.processes.get(pid);
      if (!child) throw toConnectError(new ThawError('not_found', `process ${pid} is not running`));
      return child;
    };
    const self = this;
    return {
      exec: async (request) => {
        await this.#enter('exec');
        this.#require(request.sandboxId, 'running');
        return runFake(request);
      },
      execStream: async function* (request, context) {
        await self.#enter('execStream');
        self.#require(request.sandboxId, 'running');
        yield* execStreamFake(request, context.signal, self.processes);
      },
      sendInput: async (request) => {
        await this.#enter('sendInput');
        const { stdin } = processOf(request.pid);
        if (request.data.length > 0 && stdin?.write(request.data) === false) await once(stdin, 'drain');
        if (request.eof) stdin?.end();
        return {};
      },
      signalProcess: async (request) => {
        await this.#enter('signalProcess');
        process.kill(-(processOf(request.pid).pid ?? 0), request.signal);
        return {};
      },
      resizeTerminal: async ({ pid, size }) => {
        await this.#enter('resizeTerminal');
        processOf(pid);
        this.sizes.push([size?.cols ?? 0, size?.rows ?? 0]);
        return {};
      },
      ...fakeFiles(
        this.files,
        async (rpc, sandboxId) => {
          await this.#enter(rpc);
          this.#require(sandboxId, 'running');
        },
        (more) => {
          this.watches += more;
        },
      ),
    } satisfies Partial<ServiceImpl<typeof HostAgentService>>;
  }
}
