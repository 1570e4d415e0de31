/**
 * One VM's guest agent as the host sees it: process calls and files on port 49983, control on 49982.
 * Every VM has a client of its own: a connection pool shared between VMs would reach the wrong one when an
 * address is used again.
 */
import http from 'node:http';
import { type Client, createClient, type Interceptor } from '@connectrpc/connect';
import { createConnectTransport } from '@connectrpc/connect-node';
import { Filesystem } from '../gen/filesystem_pb.ts';
import { Process } from '../gen/process_pb.ts';
import { PATIENCE, type Patience } from './silence.ts';

export const GUEST_PORT = 49983;
export const CONTROL_PORT = 49982;

/** A connection that nobody uses is closed after this; one with a call on it is not. */
const IDLE_TIMEOUT_MS = 10_000;

/** One message of a guest, in bytes: more is refused unread. A chunk of output has 44 KiB, a folder's list the most. */
const PROCESS_MESSAGE_BYTES_MAX = 2 ** 20;
const LIST_BYTES_MAX = 16 * 2 ** 20;

export class Guest {
  readonly host: string;
  readonly agent: http.Agent;
  readonly processes: Client<typeof Process>;
  readonly filesystem: Client<typeof Filesystem>;
  readonly patience: Patience;
  readonly #token: string;

  constructor(host: string, token: string, patience = PATIENCE) {
    this.host = host;
    this.patience = patience;
    this.#token = token;
    this.agent = new http.Agent({ keepAlive: true, timeout: IDLE_TIMEOUT_MS });
    const authorize: Interceptor = (next) => (request) => {
      request.header.set('X-Access-Token', token);
      return next(request);
    };
    const transport = (readMaxBytes: number) =>
      createConnectTransport({
        baseUrl: `http://${host}:${GUEST_PORT}`,
        httpVersion: '1.1',
        useBinaryFormat: false,
        interceptors: [authorize],
        nodeOptions: { agent: this.agent },
        acceptCompression: [],
        readMaxBytes,
      });
    this.processes = createClient(Process, transport(PROCESS_MESSAGE_BYTES_MAX));
    this.filesystem = createClient(Filesystem, transport(LIST_BYTES_MAX));
  }

  get headers(): Record<string, string> {
    return { 'X-Access-Token': this.#token };
  }

  /** Ends every connection; calls still open fail. */
  close(): void {
    this.agent.destroy();
  }
}

/** The Basic header by which the guest agent is told the Unix user; empty means the agent's default user. */
export function userHeader(user: string): Record<string, string> {
  return user === '' ? {} : { Authorization: `Basic ${Buffer.from(`${user}:`).toString('base64')}` };
}
