/** HostAgentService: parses a call, runs the verb, serialises what it did. No decisions here. */
import { ConnectError, type ConnectRouter, type HandlerContext, type ServiceImpl } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import { HostAgentService, toConnectError } from '@thaw/api/rpc';
import type { Host } from '../host.ts';
import { checkedEgress } from '../network/egress.ts';
import { create } from '../sandbox/create.ts';
import { destroy } from '../sandbox/destroy.ts';
import { exec, execStream, resizeTerminal, sendInput, signalProcess } from '../sandbox/exec.ts';
import { setNetwork } from '../sandbox/network.ts';
import { pause } from '../sandbox/pause.ts';
import { resume } from '../sandbox/resume.ts';
import { snapshot } from '../sandbox/snapshot.ts';
import { stat } from '../sandbox/stat.ts';
import { deleteTemplate } from '../template/delete.ts';
import { listTemplates } from '../template/list.ts';
import { fileCalls } from './files.ts';
import { hostInfo, sandboxInfo, templateInfo } from './serialise.ts';

/** Calls that yield. */
const STREAMS: ReadonlySet<string> = new Set(
  HostAgentService.methods
    .filter(({ methodKind }) => methodKind === 'server_streaming')
    .map((m) => m.localName),
);

export function routes(host: Host): (router: ConnectRouter) => void {
  const service: ServiceImpl<typeof HostAgentService> = {
    createSandbox: async (request) => ({ sandbox: sandboxInfo(host, await create(host, request)) }),
    destroySandbox: async ({ sandboxId }) => {
      await destroy(host, sandboxId);
      return {};
    },
    pauseSandbox: async ({ sandboxId }) => ({ sandbox: sandboxInfo(host, await pause(host, sandboxId)) }),
    resumeSandbox: async ({ sandboxId, network, cold }) => {
      const egress = network === undefined ? undefined : checkedEgress(network);
      const sandbox = await resume(host, sandboxId, { egress, cold });
      const { state } = sandbox;
      const buildId = state.status === 'running' ? state.machine.base : '';
      return { sandbox: sandboxInfo(host, sandbox), buildId };
    },
    setNetwork: async ({ sandboxId, network }) => {
      if (network === undefined) throw new ThawError('invalid_request', 'network is missing');
      return { sandbox: sandboxInfo(host, await setNetwork(host, sandboxId, checkedEgress(network))) };
    },
    listSandboxes: async () => ({
      sandboxes: host.registry.all().map((sandbox) => sandboxInfo(host, sandbox)),
    }),
    statSandbox: ({ sandboxId }) => stat(host, sandboxId),

    exec: (request, context) => exec(host, request, context.signal),
    execStream: (request, context) => execStream(host, request, context.signal),
    sendInput: async (request, context) => {
      await sendInput(host, request, context.signal);
      return {};
    },
    resizeTerminal: async (request) => {
      await resizeTerminal(host, request);
      return {};
    },
    signalProcess: async (request) => {
      await signalProcess(host, request);
      return {};
    },

    ...fileCalls(host),

    createSnapshot: async ({ sandboxId, templateId, name }) => {
      const { sandbox, template } = await snapshot(host, { sandboxId, templateId, name });
      return { sandbox: sandboxInfo(host, sandbox), template: templateInfo(template) };
    },
    deleteSnapshot: async ({ templateId }) => {
      await deleteTemplate(host, templateId);
      return {};
    },
    listTemplates: async () => ({ templates: (await listTemplates(host)).map(templateInfo) }),
    getHost: async () => hostInfo(host),
  };
  return (router) => router.service(HostAgentService, logged(host, service));
}

type Method = (request: never, context: HandlerContext) => unknown;

/** Turns what verbs throw into typed Connect errors; what is not of the catalogue goes to the log whole. */
function logged(
  host: Host,
  service: ServiceImpl<typeof HostAgentService>,
): ServiceImpl<typeof HostAgentService> {
  const translate = (name: string, error: unknown): ConnectError => {
    const known = error instanceof ThawError || error instanceof ConnectError;
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    if (!known) host.log.error({ rpc: name, err: error }, 'call failed unexpectedly');
    else if (cause !== error || toConnectError(error).code === 13) {
      host.log.warn({ rpc: name, err: error, cause }, 'call failed');
    }
    return toConnectError(error);
  };
  const wrapped = Object.entries(service).map(([name, method]) => {
    const run = method as Method;
    if (STREAMS.has(name)) {
      return [
        name,
        async function* (request: never, context: HandlerContext) {
          try {
            yield* run(request, context) as AsyncIterable<unknown>;
          } catch (error) {
            throw translate(name, error);
          }
        },
      ];
    }
    return [
      name,
      async (request: never, context: HandlerContext) => {
        try {
          return await run(request, context);
        } catch (error) {
          throw translate(name, error);
        }
      },
    ];
  });
  return Object.fromEntries(wrapped) as ServiceImpl<typeof HostAgentService>;
}
