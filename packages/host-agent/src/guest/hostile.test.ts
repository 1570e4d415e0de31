/** A guest agent that answers garbage, too much or nothing, played on loopback: a clear error, and nothing is left open. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ThawError } from '@thaw/api';
import { collect, type ExecEvent, stream } from './exec.ts';
import { read, write } from './files.ts';
import { list, stat, watch } from './folders.ts';
import { GUEST_PORT, Guest } from './guest.ts';

/** An address of loopback that nothing else uses: the port is the guest's own. */
const ADDRESS = '127.83.17.5';
const PATIENCE = { answerMs: 300, silenceMs: 300 };

const never = new AbortController().signal;
const program = { cmd: 'x', args: [], cwd: '', env: {}, user: 'root', timeoutMs: 0, stdin: false };
const file = { path: '/x', user: '' };
const kindOf = (kind: string) => (error: unknown) => error instanceof ThawError && error.kind === kind;

function envelope(message: object, flags = 0): Buffer {
  const json = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(5);
  head.writeUInt8(flags);
  head.writeUInt32BE(json.length, 1);
  return Buffer.concat([head, json]);
}

const STREAM_HEAD = 'HTTP/1.1 200 OK\r\nContent-Type: application/connect+json\r\nConnection: close\r\n\r\n';
const START = envelope({ event: { start: { pid: 7 } } });
const drained = (socket: Socket) =>
  new Promise<void>((resolve) => {
    socket.once('drain', resolve);
    socket.once('close', resolve);
  });
const output = (data: string | Buffer) =>
  envelope({ event: { data: { stdout: Buffer.from(data).toString('base64') } } });

describe('a hostile guest agent', () => {
  let server: Server;
  let guest: Guest;
  const sockets = new Set<Socket>();
  /** What it does when a request is there. */
  let behave: (socket: Socket) => void | Promise<void> = () => {};
  before(async () => {
    server = createServer((socket) => {
      sockets.add(socket);
      socket.setMaxListeners(0);
      socket.on('error', () => {});
      socket.on('close', () => sockets.delete(socket));
      socket.once('data', () => void behave(socket));
    });
    server.listen(GUEST_PORT, ADDRESS);
    await once(server, 'listening');
    guest = new Guest(ADDRESS, 'token', PATIENCE);
  });
  after(async () => {
    guest.close();
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, 'close');
  });

  async function hungUp(): Promise<void> {
    const deadline = performance.now() + 10_000;
    while ([...sockets].some((socket) => !socket.readableEnded && !socket.destroyed)) {
      assert.ok(performance.now() < deadline, 'a connection is left open');
      await sleep(10);
    }
  }

  const everything = (): [string, () => Promise<unknown>][] => [
    ['exec', () => collect(guest, program, Buffer.alloc(0), never)],
    ['stream', () => Array.fromAsync(stream(guest, program, never))],
    ['stat', () => stat(guest, file, never)],
    ['list', () => list(guest, file, 1, never)],
    ['watch', () => Array.fromAsync(watch(guest, file, false, never))],
    ['read', () => Array.fromAsync(read(guest, file, never))],
    ['write', () => write(guest, file, (async function* () {})(), never)],
  ];

  const answers: [string, string | Buffer][] = [
    ['no HTTP', 'garbage\r\n\r\n'],
    ['endless headers', `HTTP/1.1 200 OK\r\n${'X-A: b\r\n'.repeat(10_000)}`],
    ['a status and no more', 'HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n'],
    [
      'a body that breaks off',
      'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"e',
    ],
    [
      'JSON that is none',
      'HTTP/1.1 500 No\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{{{',
    ],
    [
      'another type',
      'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    ],
    ['a broken envelope', `${STREAM_HEAD}\x00\x00\x00\x00\xff{}`],
  ];
  for (const [what, answer] of answers) {
    it(`that answers ${what} is an agent_error`, async () => {
      behave = (socket) => void socket.end(answer);
      for (const [name, call] of everything()) {
        // Bytes of any type are a file's content.
        if (name === 'read' && (what === 'a broken envelope' || what === 'JSON that is none')) continue;
        // An upload is done when the guest says 200.
        if (name === 'write' && answer.toString().startsWith('HTTP/1.1 200')) continue;
        await assert.rejects(call(), kindOf('agent_error'), `${name}: ${what}`);
        await hungUp();
      }
    });
  }

  it('that says nothing is an agent_error after a while, and is hung up on', async () => {
    behave = () => {};
    for (const [name, call] of everything()) {
      await assert.rejects(call(), kindOf('agent_error'), name);
      await hungUp();
    }
  });

  it('that falls silent is given up, but not while its reader is slow', async () => {
    behave = (socket) =>
      void socket.write(Buffer.concat([Buffer.from(STREAM_HEAD), START, output('a'), output('b')]));
    const seen: string[] = [];
    const reading = async () => {
      for await (const event of stream(guest, program, never)) {
        seen.push(event.type);
        await sleep(2 * PATIENCE.silenceMs);
      }
    };
    await assert.rejects(reading(), kindOf('agent_error'));
    assert.deepEqual(seen, ['start', 'stdout', 'stdout']);
    await hungUp();
  });

  it('that ends a program without an exit code is an agent_error', async () => {
    behave = (socket) => void socket.end(Buffer.concat([Buffer.from(STREAM_HEAD), START, envelope({}, 2)]));
    await assert.rejects(collect(guest, program, Buffer.alloc(0), never), kindOf('agent_error'));
  });

  it('that announces a huge message is refused before it is read', async () => {
    behave = (socket) =>
      void socket.write(Buffer.concat([Buffer.from(STREAM_HEAD), Buffer.from([0, 0xff, 0xff, 0xff, 0xff])]));
    await assert.rejects(collect(guest, program, Buffer.alloc(0), never), kindOf('too_large'));
    await hungUp();
  });

  it('that floods an answer is bounded, even byte by byte', async () => {
    const small = Buffer.concat(Array.from({ length: 1000 }, () => output('x')));
    const chunk = output(Buffer.alloc(30_000));
    for (const piece of [chunk, small]) {
      behave = async (socket) => {
        socket.write(Buffer.concat([Buffer.from(STREAM_HEAD), START]));
        while (!socket.destroyed) {
          if (!socket.write(piece)) await drained(socket);
        }
      };
      const before = process.memoryUsage().rss;
      await assert.rejects(
        collect(guest, program, Buffer.alloc(0), AbortSignal.timeout(5_000)),
        (error) => error instanceof ThawError && ['too_large', 'unavailable'].includes(error.kind),
      );
      assert.ok(process.memoryUsage().rss - before < 300 * 2 ** 20);
      await hungUp();
    }
  });

  it('that floods a stream is slowed to the reader', async () => {
    let sent = 0;
    behave = async (socket) => {
      const piece = output(Buffer.alloc(30_000));
      socket.write(Buffer.concat([Buffer.from(STREAM_HEAD), START]));
      while (!socket.destroyed) {
        sent += piece.length;
        if (!socket.write(piece)) await drained(socket);
      }
    };
    const events = stream(guest, program, never)[Symbol.asyncIterator]();
    await events.next();
    let before = -1;
    while (sent !== before) {
      before = sent;
      await sleep(500);
    }
    assert.ok(sent < 64 * 2 ** 20, `${sent} bytes went to a reader who does not read`);
    await events.return?.(undefined as never);
    await hungUp();
  });

  it('that tells its error at length is cut short', async () => {
    const message = `\x1b[2J${'é'.repeat(50_000)}`;
    const body = JSON.stringify({ code: 'not_found', message });
    behave = (socket) =>
      void socket.end(
        `HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      );
    for (const call of [() => stat(guest, file, never), () => Array.fromAsync(read(guest, file, never))]) {
      await assert.rejects(call(), (error) => {
        assert.ok(error instanceof ThawError && error.kind === 'not_found', String(error));
        assert.ok(error.message.length < 2000 && !error.message.includes('\x1b'));
        return true;
      });
    }
  });

  it('that is left in the middle is hung up on', async () => {
    behave = (socket) => void socket.write(Buffer.concat([Buffer.from(STREAM_HEAD), START]));
    for await (const event of stream(guest, program, never) as AsyncIterable<ExecEvent>) {
      assert.equal(event.type, 'start');
      break;
    }
    await hungUp();
  });
});
