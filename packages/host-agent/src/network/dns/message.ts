/**
 * DNS messages (RFC 1035, with EDNS of RFC 6891) as guests send and get them. Nothing a guest sends is passed on and
 * nothing it gets is a copy: both sides of the forwarder are written anew from what was understood.
 */
import dns, { type Answer, type OptAnswer, type Packet, type Question } from 'dns-packet';
import { isHostName } from './name.ts';

export type { Answer, Packet, Question } from 'dns-packet';

const HEADER_BYTES = 12;
/** The smallest question and the smallest record. */
const QUESTION_BYTES = 5;
const RECORD_BYTES = 11;
/** More than any question needs. */
const QUERY_BYTES_MAX = 1024;
/** What a datagram holds at least, and what it holds on every path without being cut to pieces. */
const UDP_BYTES_MIN = 512;
export const UDP_BYTES_MAX = 1232;

const RCODES = { ok: 0, malformed: 1, failed: 2, noSuchName: 3, notImplemented: 4 } as const;
export type Rcode = keyof typeof RCODES;

/** Extended DNS Error of RFC 8914: the name is blocked by whoever runs the server. */
const EDE_OPTION = 15;
const EDE_BLOCKED = 15;

export interface Query {
  id: number;
  /** As the guest wrote it, which may check for the same case in the answer. */
  question: Question;
  /** In lower case. */
  name: string;
  /** Of an answer by datagram. */
  bytesMax: number;
  hasEdns: boolean;
}

export interface Reply {
  rcode: Rcode;
  answers?: readonly Answer[];
  blocked?: boolean;
}

export type Read =
  | { kind: 'query'; query: Query }
  /** To be told so, by these bytes. */
  | { kind: 'refused'; reply: Buffer }
  /** Nothing to answer to. */
  | { kind: 'noise' };

/** Never throws, whatever the bytes are. */
export function readQuery(bytes: Buffer): Read {
  if (bytes.length < HEADER_BYTES || bytes.length > QUERY_BYTES_MAX) return { kind: 'noise' };
  const flags = bytes.readUInt16BE(2);
  const isResponse = (flags & 0x8000) !== 0;
  if (isResponse) return { kind: 'noise' };
  const id = bytes.readUInt16BE(0);
  const opcode = (flags >> 11) & 15;
  if (opcode !== 0) return { kind: 'refused', reply: bare(id, 'notImplemented') };
  const [questions, answers, authorities, additionals] = counts(bytes);
  // Any number of records would be unpacked before they are looked at.
  if (questions !== 1 || answers !== 0 || authorities !== 0 || additionals > 2)
    return { kind: 'refused', reply: bare(id, 'malformed') };
  const packet = decode(bytes);
  const question = packet?.questions?.[0];
  if (packet === undefined || question === undefined || !isHostName(question.name))
    return { kind: 'refused', reply: bare(id, 'malformed') };
  if (question.class !== 'IN') return { kind: 'refused', reply: bare(id, 'notImplemented') };
  const edns = packet.additionals?.find((record): record is OptAnswer => record.type === 'OPT');
  const bytesMax = Math.min(UDP_BYTES_MAX, Math.max(UDP_BYTES_MIN, edns?.udpPayloadSize ?? 0));
  const name = question.name.toLowerCase();
  return { kind: 'query', query: { id, question, name, bytesMax, hasEdns: edns !== undefined } };
}

/** The bytes of an answer; by datagram, one that does not fit tells the guest to come by TCP. */
export function writeReply(query: Query, reply: Reply, transport: 'udp' | 'tcp'): Buffer {
  const whole = encode(query, reply, 0);
  return transport === 'tcp' || whole.length <= query.bytesMax
    ? whole
    : encode(query, { ...reply, answers: [] }, dns.TRUNCATED_RESPONSE);
}

/** A question to a server. */
export function writeQuestion(id: number, question: Question): Buffer {
  return dns.encode({
    type: 'query',
    id,
    flags: dns.RECURSION_DESIRED,
    questions: [question],
    additionals: [opt()],
  });
}

/** What a server answered to that; undefined for whatever else came. */
export function readAnswer(bytes: Buffer, id: number, question: Question): Packet | undefined {
  if (bytes.length < HEADER_BYTES || bytes.readUInt16BE(0) !== id) return undefined;
  const [questions, ...records] = counts(bytes);
  const least = questions * QUESTION_BYTES + records.reduce((sum, count) => sum + count, 0) * RECORD_BYTES;
  if (questions !== 1 || HEADER_BYTES + least > bytes.length) return undefined;
  const packet = decode(bytes);
  const asked = packet?.questions?.[0];
  const isOurs =
    packet?.type === 'response' &&
    asked?.type === question.type &&
    asked.name.toLowerCase() === question.name.toLowerCase();
  return isOurs ? packet : undefined;
}

function decode(bytes: Buffer): (Packet & { rcode?: string; flag_tc?: boolean }) | undefined {
  try {
    return dns.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Questions, answers, authorities, additionals. */
function counts(bytes: Buffer): [number, number, number, number] {
  return [bytes.readUInt16BE(4), bytes.readUInt16BE(6), bytes.readUInt16BE(8), bytes.readUInt16BE(10)];
}

function encode(query: Query, { rcode, answers = [], blocked = false }: Reply, flags: number): Buffer {
  const why = Buffer.from([0, EDE_BLOCKED]);
  return dns.encode({
    type: 'response',
    id: query.id,
    flags: dns.RECURSION_DESIRED | dns.RECURSION_AVAILABLE | flags | RCODES[rcode],
    questions: [query.question],
    answers: [...answers],
    additionals: query.hasEdns ? [opt(blocked ? [{ code: EDE_OPTION, data: why }] : [])] : [],
  });
}

/** A header alone. */
function bare(id: number, rcode: Rcode): Buffer {
  return dns.encode({ type: 'response', id, flags: dns.RECURSION_AVAILABLE | RCODES[rcode] });
}

function opt(options: { code: number; data: Buffer }[] = []): OptAnswer {
  return {
    name: '.',
    type: 'OPT',
    udpPayloadSize: UDP_BYTES_MAX,
    extendedRcode: 0,
    ednsVersion: 0,
    flags: 0,
    flag_do: false,
    options: options as unknown as OptAnswer['options'],
  };
}
