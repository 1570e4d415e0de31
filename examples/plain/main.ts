/**
 * The E2B SDK for JavaScript, as it comes from npm, on a Thaw: E2B_API_URL (or E2B_DOMAIN) and E2B_API_KEY say where.
 *
 *   node examples/plain/main.ts
 */
import { Sandbox } from 'e2b';

await using ending = new AsyncDisposableStack();
const sandbox = await Sandbox.create({ timeoutMs: 120_000, metadata: { example: 'plain' } });
ending.defer(() => sandbox.kill().then(() => {}));
console.log(`sandbox ${sandbox.sandboxId}`);

await sandbox.files.write(
  'primes.py',
  'print([n for n in range(2, 50) if all(n % d for d in range(2, n))])\n',
);
const { stdout } = await sandbox.commands.run('python3 primes.py');
console.log(`primes: ${stdout.trim()}`);

// A process goes on after a pause where it was.
const counter =
  'n=0; while true; do n=$((n+1)); echo $n > /tmp/next; mv /tmp/next /tmp/count; sleep 0.2; done';
await sandbox.commands.run(counter, { background: true, timeoutMs: 0 });
await sandbox.commands.run('until [ -e /tmp/count ]; do sleep 0.1; done');
await sandbox.pause();
console.log('paused: no process, no memory of it is left on the host');
await sandbox.connect({ timeoutMs: 120_000 });
const before = Number(await sandbox.files.read('/tmp/count'));
await sandbox.commands.run('sleep 1');
const after = Number(await sandbox.files.read('/tmp/count'));
console.log(`resumed: the counter went on from ${before} to ${after}`);

const snapshot = await sandbox.createSnapshot();
const copy = await Sandbox.create(snapshot.snapshotId, { timeoutMs: 120_000 });
console.log(`a copy knows the file too: ${(await copy.files.read('primes.py')).length} bytes`);
await copy.kill();
await Sandbox.deleteSnapshot(snapshot.snapshotId);
