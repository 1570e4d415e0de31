/**
 * Answers the DNS questions of guests that may reach domains. The firewall leads their questions here, whichever
 * server they ask; who asks is told by the source address, which the firewall lets nobody forge.
 *
 *   question ─┬─ of no domain of the sandbox ─► NXDOMAIN (a name that is above one: exists, without records)
 *             ├─ of a type without use here ─► no records: AAAA, as IPv6 never leaves
 *             └─ asked upstream ─► its addresses opened in the firewall ─► answered
 *
 * NXDOMAIN rather than REFUSED: with a refusal resolvers go on to ask, musl's until its time is over, and programs are
 * told of a passing failure. Who sends EDNS is told why.
 */
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { isSpecial, ThawError } from '@thaw/api';
import { follow, shortened } from './answer.ts';
import { type Query, type Reply, readQuery, writeReply } from './message.ts';
import { isAbove, matching } from './name.ts';
import { ask, framed, rcodeOf, type Server, unframed } from './upstream.ts';

/** Below 1024, where only root listens, and free by IANA's list. */
const PORTS = [1011, 1012, 1013, 1014, 1015, 1016, 1017, 1018, 1019, 1020];
/** Records that open nothing are passed on for these. */
const PASSED = new Set<string>(['A', 'CAA', 'CNAME', 'MX', 'NS', 'PTR', 'SOA', 'SRV', 'TXT']);
const ADDRESSES_MAX = 64;
/** Questions at once, of one guest and of all. */
const OPEN_PER_GUEST = 64;
const OPEN_MAX = 1024;
/** Questions of one guest in a second, and at once. The kernel counts packets; one of TCP may hold many questions. */
const RATE = { perSec: 100, burst: 200 };
const CONNECTIONS_PER_GUEST = 16;
const CONNECTIONS_MAX = 512;
const IDLE_MS = 10_000;
const STREAM_BYTES_MAX = 4096;
/** Of answers that are not fetched. */
const UNREAD_BYTES_MAX = 2 ** 18;

/** One who may ask. */
export interface Client {
  domains: readonly string[];
  /** Without any, the host's are asked. */
  servers: readonly string[];
  /** Lets it reach the addresses that a name under `domains` has. False when it may not, by now or for their number. */
  open(domains: readonly string[], addresses: readonly string[], ttlSec: number): Promise<boolean>;
}

export interface ForwarderOptions {
  /** Of the host, where it listens, and from where servers of sandboxes are asked. */
  address: string;
  /** Those the operator wants asked, by the host's own routes. */
  servers: readonly string[];
  /** Seconds that addresses are open for, whatever the answer says. */
  ttlSec: { min: number; max: number };
  clientAt(address: string): Client | undefined;
  warn(error: unknown): void;
}

/** Where no one says otherwise. */
const DEFAULT_SERVERS = ['8.8.8.8'];

export class Forwarder implements AsyncDisposable {
  readonly port: number;
  readonly #options: ForwarderOptions;
  readonly #udp: dgram.Socket;
  readonly #tcp: net.Server;
  readonly #questions = new Map<string, number>();
  readonly #connections = new Map<string, number>();
  /** How many questions each may put at once now, as of when. */
  readonly #credits = new Map<string, { left: number; at: number }>();
  readonly #sockets = new Set<net.Socket>();
  #open = 0;

  private constructor(options: ForwarderOptions, port: number, udp: dgram.Socket, tcp: net.Server) {
    this.port = port;
    this.#options = options;
    this.#udp = udp;
    this.#tcp = tcp;
    udp.on('error', options.warn);
    tcp.on('error', options.warn);
    udp.on('message', (bytes, { address, port: to }) => {
      // Port 0, which a guest can write into its packets, is refused by an exception.
      void this.#answer(bytes, address, 'udp')
        .then((reply) => reply && udp.send(reply, to, address, () => {}))
        .catch(options.warn);
    });
    tcp.maxConnections = CONNECTIONS_MAX;
    tcp.on('connection', (socket) => void this.#converse(socket).catch(() => {}));
  }

  /** Throws `unavailable` where it can't listen. */
  static async open(options: ForwarderOptions): Promise<Forwarder> {
    for (const port of PORTS) {
      const udp = dgram.createSocket('udp4');
      const tcp = net.createServer();
      try {
        udp.bind({ address: options.address, port, exclusive: true });
        await once(udp, 'listening');
        tcp.listen({ host: options.address, port, exclusive: true });
        await once(tcp, 'listening');
        return new Forwarder(options, port, udp, tcp);
      } catch (error) {
        udp.close();
        tcp.close();
        if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
      }
    }
    throw new ThawError('unavailable', `every port for DNS at ${options.address} is in use`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all([
      new Promise<void>((resolve) => this.#udp.close(() => resolve())),
      new Promise((resolve) => this.#tcp.close(resolve)),
    ]);
  }

  /** Undefined where nothing is to be said. Never rejects: what goes wrong is the guest's failed question. */
  async #answer(bytes: Buffer, source: string, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    const client = this.#options.clientAt(source);
    const asking = this.#questions.get(source) ?? 0;
    if (client === undefined || asking >= OPEN_PER_GUEST || this.#open >= OPEN_MAX) return undefined;
    if (!this.#hasCredit(source)) return undefined;
    const read = readQuery(bytes);
    if (read.kind === 'noise') return undefined;
    if (read.kind === 'refused') return read.reply;
    this.#questions.set(source, asking + 1);
    this.#open += 1;
    try {
      return writeReply(read.query, await this.#reply(client, read.query), transport);
    } catch (error) {
      this.#options.warn(error);
      return writeReply(read.query, { rcode: 'failed' }, transport);
    } finally {
      this.#open -= 1;
      count(this.#questions, source, -1);
    }
  }

  #hasCredit(source: string): boolean {
    const now = performance.now();
    const { left, at } = this.#credits.get(source) ?? { left: RATE.burst, at: now };
    const credit = Math.min(RATE.burst, left + ((now - at) / 1000) * RATE.perSec);
    this.#credits.set(source, { left: Math.max(0, credit - 1), at: now });
    return credit >= 1;
  }

  async #reply(client: Client, { name, question }: Query): Promise<Reply> {
    const domains = matching(client.domains, name);
    if (domains.length === 0) {
      return isAbove(client.domains, name) ? { rcode: 'ok' } : { rcode: 'noSuchName', blocked: true };
    }
    if (!PASSED.has(question.type)) return { rcode: 'ok' };
    const packet = await ask(this.#servers(client), question);
    if (packet === undefined) return { rcode: 'failed' };
    const { aliases, records, ttlSec } = follow(packet, question);
    const { min, max } = this.#options.ttlSec;
    const openSec = Math.min(max, Math.max(min, ttlSec));
    const rcode = rcodeOf(packet) === 'NXDOMAIN' ? 'noSuchName' : 'ok';
    if (question.type !== 'A' || records.length === 0)
      return { rcode, answers: shortened([...aliases, ...records], openSec) };
    // A name that means an address of the host's own net must not lead a guest there.
    const reachable = records.flatMap((record) =>
      record.type === 'A' && !isSpecial(record.data) ? [record] : [],
    );
    const taken = reachable.slice(0, ADDRESSES_MAX);
    if (taken.length === 0) return { rcode, answers: shortened(aliases, openSec), blocked: true };
    const addresses = taken.map(({ data }) => data);
    if (!(await client.open(domains, addresses, openSec))) return { rcode: 'failed' };
    return { rcode, answers: shortened([...aliases, ...taken], openSec) };
  }

  /** What a sandbox wants asked, and what nobody chose, is asked by the guests' way out: it gets no further than they. */
  #servers(client: Client): Server[] {
    const { address, servers } = this.#options;
    if (client.servers.length === 0 && servers.length > 0)
      return servers.map((server) => ({ address: server }));
    const wanted = client.servers.length > 0 ? client.servers : DEFAULT_SERVERS;
    return wanted.map((server) => ({ address: server, from: address }));
  }

  /** One question after the other. */
  async #converse(socket: net.Socket): Promise<void> {
    const source = socket.remoteAddress ?? '';
    if ((this.#connections.get(source) ?? 0) >= CONNECTIONS_PER_GUEST) {
      socket.destroy();
      return;
    }
    count(this.#connections, source, 1);
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    try {
      let received = Buffer.alloc(0);
      for await (const chunk of socket) {
        received = Buffer.concat([received, chunk as Buffer]);
        for (let message = unframed(received); message !== undefined; message = unframed(received)) {
          received = received.subarray(2 + message.length);
          const reply = await this.#answer(message, source, 'tcp');
          if (reply === undefined) return;
          socket.write(framed(reply));
          if (socket.writableLength > UNREAD_BYTES_MAX) return;
        }
        if (received.length > STREAM_BYTES_MAX) return;
      }
    } finally {
      this.#sockets.delete(socket);
      count(this.#connections, source, -1);
      socket.destroy();
    }
  }
}

function count(counts: Map<string, number>, key: string, change: 1 | -1): void {
  const now = (counts.get(key) ?? 0) + change;
  if (now > 0) counts.set(key, now);
  else counts.delete(key);
}
