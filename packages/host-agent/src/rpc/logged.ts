/** Every call: what it throws becomes a typed error, and what is not for callers goes to the log. */
import { ConnectError, type HandlerContext, type ServiceImpl } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import { HostAgentService, toConnectError } from '@thaw/api/rpc';
import type { Host } from '../host.ts';
import { eachWithin, REQUEST_ID, within } from './request.ts';

type Service = ServiceImpl<typeof HostAgentService>;
type Method = (request: never, context: HandlerContext) => unknown;

/** Calls that yield. */
const STREAMS: ReadonlySet<string> = new Set(
  HostAgentService.methods
    .filter(({ methodKind }) => methodKind === 'server_streaming')
    .map((m) => m.localName),
);

/** What changes a sandbox or a template is told when it is done; the rest only to those who look closely. */
const VERBS: ReadonlySet<string> = new Set([
  'createSandbox',
  'destroySandbox',
  'pauseSandbox',
  'resumeSandbox',
  'forkSandbox',
  'setNetwork',
  'createSnapshot',
  'tagTemplate',
  'deleteSnapshot',
]);

export function logged(host: Host, service: Service): Service {
  const wrapped = Object.entries(service).map(([name, method]) => {
    const run = method as Method;
    return [name, STREAMS.has(name) ? streaming(host, name, run) : unary(host, name, run)];
  });
  return Object.fromEntries(wrapped) as Service;
}

function unary(host: Host, name: string, run: Method) {
  const level = VERBS.has(name) ? 'info' : 'debug';
  return (request: { sandboxId?: string; templateId?: string }, context: HandlerContext) => {
    const id = context.requestHeader.get(REQUEST_ID);
    return within(id, async () => {
      const started = performance.now();
      try {
        const answer = await run(request as never, context);
        const { sandboxId: sandbox, templateId: template } = request;
        const ms = Math.round(performance.now() - started);
        host.log[level]({ rpc: name, sandbox, template, ms }, 'call');
        return answer;
      } catch (error) {
        throw translate(host, name, error, id);
      }
    });
  };
}

function streaming(host: Host, name: string, run: Method) {
  return async function* (request: never, context: HandlerContext) {
    const id = context.requestHeader.get(REQUEST_ID);
    try {
      yield* eachWithin(id, run(request, context) as AsyncIterable<unknown>);
    } catch (error) {
      throw within(id, () => translate(host, name, error, id));
    }
  };
}

function translate(host: Host, name: string, error: unknown, id: string | null): ConnectError {
  const known = error instanceof ThawError || error instanceof ConnectError;
  const caused = error instanceof Error && error.cause !== undefined;
  if (!known) host.log.error({ rpc: name, err: error }, 'call failed unexpectedly');
  else if (caused || toConnectError(error).code === 13) {
    host.log.warn({ rpc: name, err: error }, 'call failed');
  }
  const told = toConnectError(error);
  if (id !== null) told.metadata.set(REQUEST_ID, id);
  return told;
}
