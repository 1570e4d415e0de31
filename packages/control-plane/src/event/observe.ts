/** A host whose verbs are timed, counted and written into the history, whoever asks for them. */
import { told } from '@thaw/api';
import type { HostAgent } from '../host/agent.ts';
import { verbMs } from '../metrics/metrics.ts';
import type { History } from './history.ts';

export function observed(host: HostAgent, history: History): HostAgent {
  const during = async <T>(
    verb: string,
    sandboxId: string,
    act: () => Promise<T>,
    timingsOf: (result: T) => Record<string, number> = () => ({}),
  ): Promise<T> => {
    const started = performance.now();
    const end = (outcome: string, more: { message?: string; timingsMs?: Record<string, number> }) => {
      const ms = performance.now() - started;
      verbMs.observe({ verb, outcome }, ms);
      history.record(sandboxId, { verb, outcome, ms, ...more });
    };
    try {
      const result = await act();
      end('done', { timingsMs: timingsOf(result) });
      return result;
    } catch (error) {
      const { code, message } = told(error);
      end(code, { message });
      throw error;
    }
  };
  return {
    ...host,
    create: (request) =>
      during(
        'create',
        request.sandboxId ?? '',
        () => host.create(request),
        (info) => info.timingsMs,
      ),
    pause: (id, how) =>
      during(
        'pause',
        id,
        () => host.pause(id, how),
        (info) => info.timingsMs,
      ),
    resume: (id, how) =>
      during(
        'resume',
        id,
        () => host.resume(id, how),
        ({ info }) => info.timingsMs,
      ),
    snapshot: (id, templateId, name) =>
      during(
        'snapshot',
        id,
        () => host.snapshot(id, templateId, name),
        ({ sandbox }) => sandbox.timingsMs,
      ),
    fork: (id, children) =>
      during(
        'fork',
        id,
        () => host.fork(id, children),
        ({ info }) => info.timingsMs,
      ),
    setNetwork: (id, network) => during('network', id, () => host.setNetwork(id, network)),
    destroy: (id) => during('destroy', id, () => host.destroy(id)),
  };
}
