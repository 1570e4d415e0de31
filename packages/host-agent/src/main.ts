/** The host agent: reads as the list of what it starts; it stops by the same list backwards. */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { access, chmod, chown, mkdir, readFile, rm } from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { type Config, readConfig } from './config.ts';
import { networkGuests } from './guest/network.ts';
import type { Host } from './host.ts';
import { keepersOf } from './keeper/keeper.ts';
import { observeStep } from './metrics/metrics.ts';
import { instanceId } from './network/addresses.ts';
import { SlotPool } from './network/pool.ts';
import { groupId, userId } from './os/accounts.ts';
import { Cgroups } from './os/cgroup/cgroups.ts';
import { faultsFrom } from './os/fault.ts';
import { openLog } from './os/log.ts';
import { run } from './os/run.ts';
import { Steps } from './os/step.ts';
import { requestFields } from './rpc/request.ts';
import { routes } from './rpc/routes.ts';
import { startHost } from './start.ts';
import { keepBootFiles } from './vmm/boot-files.ts';
import { chooseVmm } from './vmm/choose.ts';

const SHUTDOWN_TIMEOUT_MS = 30_000;
const MESSAGE_BYTES_MAX = 128 * 2 ** 20;

async function main(): Promise<void> {
  const config = readConfig(process.env);
  const log = openLog(config.logLevel, requestFields);
  await using undo = new AsyncDisposableStack();
  await prepareFolders(config);
  const binaries = await installedBinaries(config.versionDir);
  await probeData(binaries.blockstore, config.data);
  const guestDir = path.join(config.versionDir, 'guest');
  const boot = await keepBootFiles(config.data, guestDir);
  const vmms = await chooseVmm({
    wanted: config.vmm,
    programs: binaries,
    firecracker: config.firecracker,
    jailer: config.jailer,
    console: config.console,
    kernel: boot.kernel,
    cache: (vmm) => `/run/thaw.${vmm}-probe.json`,
  });
  log.info({ ...vmms.chosen.info, why: vmms.why }, 'virtual machines');

  const fault = faultsFrom(process.env, config.run);
  const cgroups = undo.use(
    await Cgroups.open({ instance: await instanceId(config.data), group: config.cgroup }),
  );
  log.info({ limited: cgroups.controllers, missing: cgroups.missing }, 'limits of sandboxes');
  const { host } = undo.use(
    await startHost({
      config,
      log,
      cgroups,
      vmm: vmms.chosen,
      kitOf: vmms.of,
      boot,
      fault,
      guestDir,
      keepers: keepersOf(binaries.keeper),
      guests: networkGuests,
      preloadSha: binaries.preloadSha,
      openSlots: async (keep) =>
        SlotPool.open({
          data: config.data,
          size: config.slotPool,
          uidBase: config.uidBase,
          uplink: config.uplink,
          dnsServers: config.dnsServers,
          clientUids: [await userId('thaw')],
          keep,
          log,
          steps: new Steps(fault, observeStep),
        }),
    }),
  );

  undo.use(host.sampler);
  host.sampler.begin();

  const server = await listen(host);
  undo.defer(() => closeServer(server));
  log.info({ sandboxes: host.registry.all().length }, 'ready');
  await Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')]);
  log.info('stopping; sandboxes go on');
}

async function prepareFolders(config: Config): Promise<void> {
  // Other users reach their own files below it, and nothing else: each folder in it has rights of its own.
  await mkdir(config.data, { recursive: true, mode: 0o711 });
  await mkdir(config.run, { recursive: true, mode: 0o711 });
  await mkdir(path.join(config.run, 'sandboxes'), { recursive: true, mode: 0o700 });
  // resize2fs leaves inode tables for later only where the host's ext4 says that it knows how.
  await access('/sys/fs/ext4').catch(() => run(['modprobe', 'ext4']).catch(() => {}));
}

async function installedBinaries(versionDir: string) {
  const preload = path.join(versionDir, 'lib', 'libthaw_preload.so');
  return {
    keeper: path.join(versionDir, 'bin', 'thaw-keeper'),
    pager: path.join(versionDir, 'bin', 'thaw-pager'),
    blockstore: path.join(versionDir, 'bin', 'thaw-blockstore'),
    preload,
    preloadSha: createHash('sha256')
      .update(await readFile(preload))
      .digest('hex'),
    qemu: '/usr/bin/qemu-system-x86_64',
  };
}

/** Refuses a file system that does not tell the holes of a sparse file exactly: blocks would be lost on it. */
async function probeData(blockstore: string, data: string): Promise<void> {
  await run([blockstore, 'probe', data]).catch((cause) => {
    throw new Error(
      `${data} can't hold sandboxes: its file system does not tell the holes of a sparse file`,
      { cause },
    );
  });
}

async function listen(host: Host): Promise<http.Server> {
  const socket = path.join(host.config.run, 'agent.sock');
  const server = http.createServer(
    connectNodeAdapter({
      routes: routes(host),
      grpc: false,
      grpcWeb: false,
      acceptCompression: [],
      readMaxBytes: MESSAGE_BYTES_MAX,
    }),
  );
  // Streams last as long as what they stream.
  server.requestTimeout = 0;
  // A call must not meet a connection that is just being closed for idling.
  server.keepAliveTimeout = 0;
  await rm(socket, { force: true });
  server.listen(socket);
  await once(server, 'listening');
  await chown(socket, 0, await groupId('thaw'));
  await chmod(socket, 0o660);
  return server;
}

/** Verbs in flight run to their end; streams are cut when the time is over. */
async function closeServer(server: http.Server): Promise<void> {
  const closed = once(server, 'close');
  server.close();
  const timer = setTimeout(() => server.closeAllConnections(), SHUTDOWN_TIMEOUT_MS);
  await closed;
  clearTimeout(timer);
}

// The verbs' keepers and connections would keep the loop alive; by now nothing of them is needed.
await main().then(
  () => process.exit(0),
  (error) => {
    process.stderr.write(
      `${JSON.stringify({ level: 60, msg: 'the host agent stopped', error: String(error), stack: error?.stack, cause: String(error?.cause ?? '') })}\n`,
    );
    process.exit(1);
  },
);
