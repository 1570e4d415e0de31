/** Guests and clients that send without end, take without reading, or do nothing: bounded memory, nobody else suffers. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ThawError } from '@thaw/api';
import type { ExecStream } from '@thaw/sdk';
import { WebSocket } from 'ws';
import { eventually, startThaw, type TestThaw } from './harness.ts';
import { holdsBounded } from './memory.ts';
import { ownHost } from './own-host.ts';

await ownHost(import.meta.filename);

const MIB = 2 ** 20;
const CLIENTS = 6;
const FLOOD_MS = process.env.THAW_FULL ? 60_000 : 5_000;
/** Larger than the disk that it goes to. */
const UPLOAD_MIB = 10 * 1024;
const GROWTH_MIB = 160;

describe('floods', () => {
  let thaw: TestThaw;
  let flooding: string;
  let other: string;
  before(async () => {
    thaw = await startThaw();
    flooding = (await thaw.sdk.sandboxes.create()).id;
    other = (await thaw.sdk.sandboxes.create()).id;
  });
  after(() => thaw?.stop());

  const endless = (): ExecStream =>
    thaw.sdk.sandboxes.execStream(flooding, { cmd: 'cat', args: ['/dev/zero'] });

  /** Another sandbox answers, whatever goes on here. */
  async function othersWork(): Promise<void> {
    assert.equal(await thaw.sh(other, 'echo fine'), 'fine\n');
  }

  async function nothingRuns(name: string): Promise<void> {
    await eventually(async () => {
      const { exit_code } = await thaw.sdk.sandboxes.exec(flooding, { cmd: 'pgrep', args: ['-x', name] });
      assert.equal(exit_code, 1);
    }, 60_000);
  }

  it('of output that is answered as a whole are refused', async () => {
    await holdsBounded(thaw, GROWTH_MIB, async () => {
      const all = Array.from({ length: CLIENTS }, () =>
        assert.rejects(
          thaw.sdk.sandboxes.exec(flooding, { cmd: 'cat', args: ['/dev/zero'], timeout_sec: 120 }),
          (error) => error instanceof ThawError && error.kind === 'too_large',
        ),
      );
      await Promise.all([...all, othersWork()]);
    });
    await nothingRuns('cat');
  });

  it('of output that nobody reads wait in the guest', async () => {
    const runs = Array.from({ length: CLIENTS }, endless);
    await holdsBounded(thaw, GROWTH_MIB, async () => {
      await Promise.all(runs.map((run) => run.pid));
      await Promise.all([sleep(FLOOD_MS), othersWork()]);
    });
    for (const run of runs) run.close();
    await nothingRuns('cat');
  });

  it('of output that is read leave nothing behind', async () => {
    const run = endless();
    await holdsBounded(thaw, GROWTH_MIB, async () => {
      const end = performance.now() + FLOOD_MS;
      let bytes = 0;
      for await (const { data } of run) {
        bytes += data.length;
        if (performance.now() > end) break;
      }
      assert.ok(bytes > MIB);
      await othersWork();
    });
    run.close();
    await nothingRuns('cat');
  });

  it('of input that nobody reads wait at the client', async () => {
    const run = thaw.sdk.sandboxes.execStream(flooding, { cmd: 'sleep', args: ['1000'], stdin: true });
    await run.pid;
    let sent = 0;
    const piece = Buffer.alloc(MIB, 'x');
    const sending = (async () => {
      for (; sent < UPLOAD_MIB; sent++) await run.write(piece);
    })();
    sending.catch(() => {});
    await holdsBounded(thaw, GROWTH_MIB, () => Promise.all([sleep(FLOOD_MS), othersWork()]));
    assert.ok(sent < 100, `${sent} MiB were taken`);
    run.close();
    await nothingRuns('sleep');
  });

  it('of uploads end where the disk does, with a clear error', async () => {
    const small = (await thaw.sdk.sandboxes.create({ disk_mb: 1024 })).id;
    if (!process.env.THAW_FULL) await thaw.sh(small, 'fallocate -l 500M /root/ballast');
    const piece = Buffer.alloc(MIB, 'x');
    const content = (async function* () {
      for (let i = 0; i < UPLOAD_MIB; i++) yield piece;
    })();
    await holdsBounded(thaw, GROWTH_MIB, () =>
      assert.rejects(
        thaw.sdk.sandboxes.writeFile(small, '/root/flood', content),
        (error) => error instanceof ThawError && error.kind === 'exhausted',
      ),
    );
    await othersWork();
    await thaw.sh(small, 'rm /root/flood; echo ok > /root/after');
    await thaw.sdk.sandboxes.delete(small);
  });

  it('of clients that do nothing cost little', async () => {
    const { hostname, port } = new URL(thaw.url);
    const sockets: net.Socket[] = [];
    const idle: WebSocket[] = [];
    await holdsBounded(thaw, GROWTH_MIB, async () => {
      for (let i = 0; i < 100; i++) {
        const socket = new WebSocket(`${thaw.url.replace('http', 'ws')}/v1/sandboxes/${other}/exec/stream`, {
          headers: { 'X-API-Key': thaw.key },
        });
        socket.on('error', () => {});
        await once(socket, 'open');
        idle.push(socket);
      }
      const head =
        `POST /v1/sandboxes/${other}/files/stream/write HTTP/1.1\r\nHost: x\r\nX-API-Key: ${thaw.key}\r\n` +
        'Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n';
      const part =
        '--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n/root/half\r\n--b\r\n' +
        'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\nabc';
      for (let i = 0; i < 100; i++) {
        const socket = net.connect(Number(port), hostname);
        socket.on('error', () => {});
        sockets.push(socket);
        socket.write(`${head}${Buffer.byteLength(part).toString(16)}\r\n${part}\r\n`);
      }
      await sleep(1000);
      await othersWork();
    });
    for (const socket of idle) socket.terminate();
    for (const socket of sockets) socket.destroy();
    await othersWork();
  });
});
