import assert from 'node:assert/strict';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import type { Host } from '../host.ts';
import { checkRoom, checkRoomBeside } from './room.ts';
import type { SandboxState } from './sandbox.ts';

const sandboxes = (...states: SandboxState['status'][]) =>
  states.map((status) => ({ state: { status }, record: { memoryMb: 512 } }));

/** What the check looks at. */
function host(guestMemoryMb: number, diskReserveMb: number, all: object[], spareMb = 0): Host {
  const config = { data: tmpdir(), guestMemoryMb, diskReserveMb };
  const spares = {
    memoryMb: spareMb,
    async drop() {
      const had = this.memoryMb > 0;
      this.memoryMb = 0;
      return had;
    },
  };
  return { config, registry: { all: () => all }, spares } as unknown as Host;
}

test('guests together get what they may have, and not a MiB more', async () => {
  const all = sandboxes('running', 'pending', 'pausing', 'paused', 'error');
  await checkRoom(host(1536, 0, all), 512);
  await assert.rejects(checkRoom(host(1535, 0, all), 512), {
    kind: 'exhausted',
    message: /may have 1535 MiB together, and with this sandbox they would have 1536/,
  });
});

test('spares count, and give way', async () => {
  const all = sandboxes('running');
  await assert.rejects(checkRoomBeside(host(1023, 0, all, 512), 512), { kind: 'exhausted' });
  await checkRoomBeside(host(1024, 0, all, 512), 512);
  await checkRoom(host(1023, 0, all, 512), 512);
  await assert.rejects(checkRoom(host(511, 0, all, 512), 512), { kind: 'exhausted' });
});

test('what the machine does not have now is refused', async () => {
  await assert.rejects(checkRoom(host(2 ** 40, 0, sandboxes('resuming')), 2 ** 30), {
    kind: 'exhausted',
    message: /MiB are available, this sandbox may need 1073741824/,
  });
});

test('there must be room on the disk to pause everything', async () => {
  await checkRoom(host(4096, 0, sandboxes('running')), 512);
  await assert.rejects(checkRoom(host(4096, 2 ** 40, sandboxes('running')), 512), {
    kind: 'exhausted',
    message: /disk of this host is too full/,
  });
});
