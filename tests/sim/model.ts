/**
 * What a sandbox may answer, whoever asks at the same time: there must be an order of its operations, each at some moment
 * between its request and its answer, in which a sandbox that does one thing at a time would have answered just that.
 */
import type { Operation } from './operations.ts';

type State = 'running' | 'paused' | 'gone';

interface At {
  state: State;
  content: number;
}

/** Only for runs in which nothing fails: there every answer is exact. */
export function explain(operations: readonly Operation[], born: At, autoResume: boolean): string | undefined {
  const all = operations.filter(({ end }) => end !== undefined);
  const seen = new Set<string>();
  /** `done`: a bit for each operation. */
  const search = (done: bigint, at: At): boolean => {
    if (done === (1n << BigInt(all.length)) - 1n) return true;
    const key = `${done} ${at.state} ${at.content}`;
    if (seen.has(key)) return false;
    seen.add(key);
    const pending = all.filter((_, index) => !(done & (1n << BigInt(index))));
    const firstEnd = Math.min(...pending.map(({ end }) => end!));
    for (const [index, operation] of all.entries()) {
      if (done & (1n << BigInt(index)) || operation.start > firstEnd) continue;
      for (const next of outcomes(operation, at, overlapping(all, operation), autoResume)) {
        if (search(done | (1n << BigInt(index)), next)) return true;
      }
    }
    return false;
  };
  if (search(0n, born)) return undefined;
  const told = all.map(
    ({ kind, value, start, end, status, body }) =>
      `${start}-${end} ${kind}${value === undefined ? '' : ` ${value}`}: ${status} ${body?.stdout ?? body?.error?.message ?? ''}`,
  );
  return `no order explains\n    ${told.join('\n    ')}`;
}

function overlapping(all: readonly Operation[], one: Operation): Operation[] {
  return all.filter((other) => other !== one && other.start <= one.end! && one.start <= other.end!);
}

const isCall = ({ kind }: Operation): boolean => kind === 'put' || kind === 'get';
const VERBS = ['pause', 'resume', 'snapshot', 'fork', 'destroy'];

/** The states that an operation with this answer can lead to from `at`; none if the answer is wrong there. */
function outcomes(operation: Operation, at: At, others: readonly Operation[], autoResume: boolean): At[] {
  const { kind, status, value, body } = operation;
  const { state, content } = at;
  const same = [at];
  const verbBeside = others.some((other) => VERBS.includes(other.kind) || (autoResume && isCall(other)));
  /** The same verb at the same time: one result for both. */
  const joined = others.some((other) => other.kind === kind && other.status === status);
  if (status === 404) return state === 'gone' ? same : [];
  /** A call that woke it and then failed. */
  const woken: At = state === 'paused' && autoResume ? { state: 'running', content } : at;
  const awake = state === 'running' || (state === 'paused' && autoResume);
  switch (kind) {
    case 'put':
      if (status === 200) return awake ? [{ state: 'running', content: value! }] : [];
      // A call that a pause or destroy cut off may have done its work before.
      if (status === 503 && verbBeside)
        return awake ? [at, woken, { state: 'running', content: value! }] : same;
      return status === 409 && (state !== 'running' || verbBeside) ? [at, woken] : [];
    case 'get':
      if (status === 200)
        return awake && Number(body.stdout) === content ? [{ state: 'running', content }] : [];
      return (status === 409 && (state !== 'running' || verbBeside)) || (status === 503 && verbBeside)
        ? [at, woken]
        : [];
    case 'pause':
      if (status === 200 && state === 'running') return [{ state: 'paused', content }];
      if (status === 200) return state === 'paused' && joined ? same : [];
      return status === 409 && (state !== 'running' || verbBeside) ? same : [];
    case 'resume':
      if (status === 200 && state === 'paused') return [{ state: 'running', content }];
      if (status === 200)
        return state === 'running' && (joined || (autoResume && others.some(isCall))) ? same : [];
      return status === 409 && (state !== 'paused' || verbBeside) ? same : [];
    case 'snapshot':
    case 'fork':
      if (status === 201) return state === 'gone' ? [] : same;
      return status === 409 ? same : [];
    case 'destroy':
      return status === 204 ? [{ state: 'gone', content }] : [];
    default:
      return same;
  }
}
