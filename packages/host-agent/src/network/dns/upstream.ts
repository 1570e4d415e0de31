/** Asking servers: each question from a port and with a number that nobody can guess, by TCP where a datagram is too small. */
import { randomInt } from 'node:crypto';
import dgram from 'node:dgram';
import net from 'node:net';
import { type Packet, type Question, readAnswer, writeQuestion } from './message.ts';

const PORT = 53;
const ROUNDS = 2;
const ANSWER_WITHIN_MS = 2000;
/** Guests' resolvers do not wait for longer. */
const GIVE_UP_AFTER_MS = 6000;

export interface Server {
  address: string;
  /** The host's address it is asked from; without one, whichever the route to it has. */
  from?: string;
}

/** The first answer that is one, of the servers in their order; undefined when none gave any. */
export async function ask(servers: readonly Server[], question: Question): Promise<Packet | undefined> {
  const end = performance.now() + GIVE_UP_AFTER_MS;
  for (let round = 0; round < ROUNDS; round++) {
    for (const server of servers) {
      if (performance.now() > end) return undefined;
      const packet = await askOne(server, question).catch(() => undefined);
      if (packet !== undefined && (rcodeOf(packet) === 'NOERROR' || rcodeOf(packet) === 'NXDOMAIN'))
        return packet;
    }
  }
  return undefined;
}

/** `NOERROR`, `NXDOMAIN`, … */
export function rcodeOf(packet: Packet): string {
  return (packet as { rcode?: string }).rcode ?? '';
}

async function askOne(server: Server, question: Question): Promise<Packet> {
  const packet = await askByUdp(server, question);
  const isCut = (packet as { flag_tc?: boolean }).flag_tc === true;
  return isCut ? askByTcp(server, question) : packet;
}

function askByUdp({ address, from }: Server, question: Question): Promise<Packet> {
  const id = randomInt(65_536);
  const socket = dgram.createSocket('udp4');
  return within(
    (resolve, reject) => {
      socket.once('error', reject);
      // What is no answer to this question may be somebody's guess: the true one may still come.
      socket.on('message', (bytes) => {
        const packet = readAnswer(bytes, id, question);
        if (packet !== undefined) resolve(packet);
      });
      socket.bind({ port: 0, exclusive: true, ...(from !== undefined && { address: from }) }, () => {
        // Connected, it takes datagrams of the server alone.
        socket.connect(PORT, address, (error?: Error) =>
          error
            ? reject(error)
            : socket.send(writeQuestion(id, question), (failed) => failed && reject(failed)),
        );
      });
    },
    () => socket.close(),
  );
}

function askByTcp({ address, from }: Server, question: Question): Promise<Packet> {
  const id = randomInt(65_536);
  const socket = net.connect({
    host: address,
    port: PORT,
    ...(from !== undefined && { localAddress: from }),
  });
  return within(
    (resolve, reject) => {
      let received = Buffer.alloc(0);
      socket.once('error', reject).once('close', () => reject(new Error('closed')));
      socket.once('connect', () => socket.write(framed(writeQuestion(id, question))));
      socket.on('data', (chunk) => {
        received = Buffer.concat([received, chunk]);
        const message = unframed(received);
        if (message === undefined) return;
        const packet = readAnswer(message, id, question);
        if (packet === undefined) reject(new Error('no answer to the question'));
        else resolve(packet);
      });
    },
    () => socket.destroy(),
  );
}

/** A message on a stream, behind its length (RFC 1035, section 4.2.2). */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

/** The first message of a stream, once it is there. */
export function unframed(received: Buffer): Buffer | undefined {
  if (received.length < 2) return undefined;
  const end = 2 + received.readUInt16BE(0);
  return received.length < end ? undefined : received.subarray(2, end);
}

async function within<T>(
  start: (resolve: (value: T) => void, reject: (error: Error) => void) => void,
  release: () => void,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise<T>((resolve, reject) => {
      timer = setTimeout(() => reject(new Error('no answer in time')), ANSWER_WITHIN_MS);
      start(resolve, reject);
    });
  } finally {
    clearTimeout(timer);
    release();
  }
}
