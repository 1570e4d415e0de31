/** Guests as one life of the host agent reaches them; each call waits at a gate of that life. */
import { Code, ConnectError, createClient, createRouterTransport } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import { Process } from '../../packages/host-agent/src/gen/process_pb.ts';
import type { Guests } from '../../packages/host-agent/src/guest/control.ts';
import { Guest } from '../../packages/host-agent/src/guest/guest.ts';
import type { GuestState, Room } from './room.ts';
import type { Gate } from './scheduler.ts';

/** Waits until the guest at this address runs; throws when there is none. */
async function running(room: Room, address: string): Promise<GuestState> {
  for (;;) {
    const process = room.keepers.find(({ netns, vm }) => netns === address && vm !== undefined);
    if (process?.guest === undefined) throw new ThawError('timeout', 'the guest did not answer in time');
    if (!process.stopped) return process.guest;
    await room.change();
  }
}

class RoomGuest extends Guest {
  override readonly processes;
  #closed = false;

  constructor(room: Room, address: string, token: string, gate: Gate) {
    super(address, token);
    const gone = () => new ConnectError('the connection broke', Code.Unavailable);
    /** The guest at work for us: it runs, its processes are not frozen, and it knows our token. */
    const ready = async (signal: AbortSignal): Promise<GuestState> => {
      for (;;) {
        const guest = await running(room, address).catch(() => {
          throw gone();
        });
        if (this.#closed || signal.aborted) throw gone();
        if (guest.identity?.accessToken !== token) throw new ConnectError('no', Code.Unauthenticated);
        if (!guest.frozen) return guest;
        await room.change();
      }
    };
    const transport = createRouterTransport((router) => {
      router.service(Process, {
        async *start({ process }, { signal }) {
          await gate('guest:start');
          const guest = await ready(signal);
          const [action, value] = [process?.cmd, Number(process?.args[0])];
          if (action === 'put') guest.write(value);
          const data = Buffer.from(String(guest.content));
          yield { event: { event: { case: 'start', value: { pid: 1 } } } };
          yield { event: { event: { case: 'data', value: { output: { case: 'stdout', value: data } } } } };
          await gate('guest:end');
          if (action === 'get' && signal.aborted) throw gone();
          yield { event: { event: { case: 'end', value: { exitCode: 0, exited: true, status: '' } } } };
        },
      });
    });
    this.processes = createClient(Process, transport);
  }

  override close(): void {
    this.#closed = true;
    super.close();
  }
}

export function roomGuests(room: Room, gate: Gate): Guests {
  return {
    open: (address, token) => new RoomGuest(room, address, token, gate),
    async init(address, { counter, sandboxId, accessToken }) {
      await gate('guest:init');
      const guest = await running(room, address);
      room.check(
        guest.identity === undefined || guest.identity.counter < counter,
        `${sandboxId}: its guest was told a counter again`,
      );
      guest.become({ counter, sandboxId, accessToken }, false);
      room.changed();
    },
    async prepare(address) {
      try {
        await gate('guest:prepare');
        const guest = await running(room, address);
        guest.become(guest.identity, true);
        return 'frozen';
      } catch {
        return 'silent';
      }
    },
    async rehearse(address) {
      await gate('guest:rehearse');
      await running(room, address);
    },
    async thaw(address) {
      await gate('guest:thaw');
      const guest = await running(room, address);
      guest.become(guest.identity, false);
      room.changed();
    },
  };
}
