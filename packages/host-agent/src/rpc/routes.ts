/** HostAgentService: parses a call, runs the verb, serialises what it did. No decisions here. */
import type { ConnectRouter, ServiceImpl } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import { HostAgentService } from '@thaw/api/rpc';
import type { Host } from '../host.ts';
import { readMetrics } from '../metrics/read.ts';
import { checkedEgress } from '../network/egress.ts';
import { readLogs } from '../sandbox/console.ts';
import { create } from '../sandbox/create.ts';
import { destroy } from '../sandbox/destroy.ts';
import { exec, execStream, resizeTerminal, sendInput, signalProcess } from '../sandbox/exec.ts';
import { fork } from '../sandbox/fork.ts';
import { setNetwork } from '../sandbox/network.ts';
import { pause } from '../sandbox/pause.ts';
import { resume } from '../sandbox/resume.ts';
import { snapshot } from '../sandbox/snapshot.ts';
import { stat } from '../sandbox/stat.ts';
import { deleteTemplate } from '../template/delete.ts';
import { listTemplates } from '../template/list.ts';
import { tagTemplate } from '../template/tag.ts';
import { fileCalls } from './files.ts';
import { logged } from './logged.ts';
import { samplesInfo } from './samples.ts';
import { forkedInfo, hostInfo, sandboxInfo, templateInfo } from './serialise.ts';

export function routes(host: Host): (router: ConnectRouter) => void {
  const service: ServiceImpl<typeof HostAgentService> = {
    createSandbox: async (request) => ({ sandbox: sandboxInfo(host, await create(host, request)) }),
    destroySandbox: async ({ sandboxId }) => {
      await destroy(host, sandboxId);
      return {};
    },
    pauseSandbox: async ({ sandboxId, diskOnly, healthy }) => ({
      sandbox: sandboxInfo(host, await pause(host, sandboxId, { diskOnly, healthy })),
    }),
    resumeSandbox: async ({ sandboxId, network, cold }) => {
      const egress = network === undefined ? undefined : checkedEgress(network);
      const sandbox = await resume(host, sandboxId, { egress, cold });
      const { state } = sandbox;
      const buildId = state.status === 'running' ? state.machine.base : '';
      return { sandbox: sandboxInfo(host, sandbox), buildId };
    },
    forkSandbox: async (request) => {
      const { source, children } = await fork(host, request);
      return {
        sandbox: sandboxInfo(host, source),
        children: children.map((child) => forkedInfo(host, child)),
      };
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
    tagTemplate: async ({ sourceTemplateId, templateId, name }) => ({
      template: templateInfo(await tagTemplate(host, sourceTemplateId, { id: templateId, name })),
    }),
    deleteSnapshot: async ({ templateId }) => {
      await deleteTemplate(host, templateId);
      return {};
    },
    listTemplates: async () => ({ templates: (await listTemplates(host)).map(templateInfo) }),
    getHost: async () => hostInfo(host),
    getLogs: async ({ sandboxId }) => ({ text: await readLogs(host, sandboxId) }),
    getMetrics: async () => ({ text: await readMetrics(host) }),
    getSamples: async (request) => ({ sandboxes: await samplesInfo(host, request) }),
  };
  return (router) => router.service(HostAgentService, logged(host, service));
}
