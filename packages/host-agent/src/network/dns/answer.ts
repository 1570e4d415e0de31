/** What of a server's answer is about the question. */
import type { Answer, Packet, Question } from './message.ts';

const ALIASES_MAX = 16;

export interface Followed {
  /** The aliases from the name that was asked for, in order. */
  aliases: Answer[];
  /** The records of the asked type at the end of them. */
  records: Exclude<Answer, { type: 'OPT' }>[];
  /** The shortest of all these, in seconds. */
  ttlSec: number;
}

/** Everything else in the answer, whoever put it there, counts for nothing. */
export function follow(packet: Packet, question: Question): Followed {
  const answers = (packet.answers ?? []).filter((answer) => answer.type !== 'OPT' && answer.class === 'IN');
  const of = (type: string, name: string) =>
    answers.filter(
      (answer) => answer.type === type && answer.name.toLowerCase() === name,
    ) as Followed['records'];
  const aliases: Followed['records'] = [];
  let name = question.name.toLowerCase();
  let records = of(question.type, name);
  while (records.length === 0 && aliases.length < ALIASES_MAX) {
    const alias = of('CNAME', name)[0];
    if (alias?.type !== 'CNAME') break;
    aliases.push(alias);
    name = alias.data.toLowerCase();
    records = of(question.type, name);
  }
  const ttls = [...aliases, ...records].map(({ ttl }) => ttl ?? 0);
  return { aliases, records, ttlSec: Math.min(...ttls) };
}

/** With no longer time to live than `ttlSec`. */
export function shortened(answers: readonly Answer[], ttlSec: number): Answer[] {
  return answers.map((answer) =>
    answer.type === 'OPT' ? answer : { ...answer, ttl: Math.min(answer.ttl ?? 0, ttlSec) },
  );
}
