import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { type Cases, fails, sh } from './stage.ts';

const GIB = 2 ** 30;
const PIECE = 2 ** 20;
/** Takes every free block of the disk. */
const FILL =
  'n=0; for size in 1G 64M 1M 4K; do while fallocate -l $size /fill$n 2> /dev/null; do n=$((n+1)); done; done; true';

/** `pieces` MiB, each different, without holding them. */
function stream(pieces: number, hash: (piece: Uint8Array) => void): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at === pieces) return controller.close();
      const piece = new Uint8Array(PIECE).fill(at % 251);
      new DataView(piece.buffer).setUint32(0, at);
      hash(piece);
      controller.enqueue(piece);
      at += 1;
    },
  });
}

async function drain(
  content: ReadableStream<Uint8Array>,
  each: (piece: Uint8Array) => void,
): Promise<number> {
  let length = 0;
  for await (const piece of content) {
    each(piece);
    length += piece.length;
  }
  return length;
}

export const filesMore: Cases = {
  'files/formats': async ({ folder }) => {
    const { sandbox, path } = await folder('formats');
    const text = 'zwölf Boxkämpfer 🥊\n'.repeat(3000);
    const bytes = new TextEncoder().encode(text);
    const contents = {
      string: text,
      buffer: bytes.buffer,
      blob: new Blob([bytes]),
      stream: new Blob([bytes]).stream(),
    };
    for (const [name, content] of Object.entries(contents)) {
      await sandbox.files.write(`${path}/${name}`, content);
      assert.equal(await sandbox.files.read(`${path}/${name}`), text, name);
    }
    const file = `${path}/string`;
    assert.deepEqual(await sandbox.files.read(file, { format: 'bytes' }), bytes);
    assert.equal(await (await sandbox.files.read(file, { format: 'blob' })).text(), text);
    const read: Uint8Array[] = [];
    await drain(await sandbox.files.read(file, { format: 'stream' }), (piece) => read.push(piece));
    assert.equal(Buffer.concat(read).toString(), text);

    await sandbox.files.write(`${path}/zipped`, text, { gzip: true });
    assert.equal(await sh(sandbox, `wc -c < ${path}/zipped`), String(bytes.length), 'stored plain');
    assert.equal(await sandbox.files.read(`${path}/zipped`, { gzip: true }), text);
    await sandbox.files.write(`${path}/octets`, text, { useOctetStream: true });
    assert.equal(await sandbox.files.read(`${path}/octets`), text);
    const many = Array.from({ length: 40 }, (_, n) => ({ path: `${path}/many/${n}`, data: `file ${n}` }));
    assert.equal((await sandbox.files.writeFiles(many)).length, 40);
    assert.equal(
      await sh(sandbox, `cat ${path}/many/* | wc -c`),
      String(many.map(({ data }) => data).join('').length),
    );
    assert.deepEqual(await sandbox.files.write([]), []);
  },

  'files/metadata': async ({ folder }) => {
    const { sandbox, path } = await folder('metadata');
    const written = await sandbox.files.write(`${path}/a`, 'x', {
      metadata: { Author: 'me', stage: 'two words' },
    });
    assert.deepEqual(written.metadata, { author: 'me', stage: 'two words' });
    assert.deepEqual((await sandbox.files.getInfo(`${path}/a`)).metadata, written.metadata);
    const [listed] = await sandbox.files.list(path);
    assert.deepEqual(listed?.metadata, written.metadata);
    // Each upload says all of it anew.
    assert.equal((await sandbox.files.write(`${path}/a`, 'y')).metadata, undefined);
    assert.equal((await sandbox.files.getInfo(`${path}/a`)).metadata, undefined);
    await fails(
      sandbox.files.write(`${path}/b`, 'x', { metadata: { key: 'v'.repeat(5000) } }),
      'InvalidArgumentError',
    );
    await fails(
      sandbox.files.write(`${path}/b`, 'x', { metadata: { 'no spaces': '' } }),
      'InvalidArgumentError',
    );
  },

  'files/special': async ({ folder }) => {
    const { sandbox, path } = await folder('special');
    await sandbox.files.write(`${path}/target`, 'seen through');
    await sandbox.commands.run(
      'ln -s target link; ln -s nowhere broken; mkfifo pipe; mkdir d; ln -s d dirlink',
      { cwd: path },
    );
    assert.equal(await sandbox.files.read(`${path}/link`), 'seen through');
    const link = await sandbox.files.getInfo(`${path}/link`);
    assert.deepEqual([link.type, link.symlinkTarget, link.permissions[0]], ['file', `${path}/target`, 'L']);
    const names = (await sandbox.files.list(path)).map(({ name }) => name);
    assert.deepEqual(
      names,
      ['d', 'dirlink', 'link', 'target'],
      'what is no file, folder or link to one is left out',
    );
    assert.equal(await sandbox.files.exists(`${path}/broken`), true);
    assert.match(await sandbox.files.read('/proc/version'), /^Linux version/);
    await sandbox.files.write(`${path}/empty`, '');
    assert.equal(await sandbox.files.read(`${path}/empty`), '');
    assert.deepEqual(await sandbox.files.read(`${path}/empty`, { format: 'bytes' }), new Uint8Array(0));
  },

  'files/big': async ({ create }) => {
    const sandbox = await create({ timeoutMs: 900_000 });
    const sent = createHash('sha256');
    await sandbox.files.write(
      '/home/user/big',
      stream(GIB / PIECE, (piece) => sent.update(piece)),
    );
    assert.equal((await sandbox.files.getInfo('/home/user/big')).size, GIB);
    const received = createHash('sha256');
    const content = await sandbox.files.read('/home/user/big', { format: 'stream' });
    assert.equal(await drain(content, (piece) => received.update(piece)), GIB);
    assert.equal(received.digest('hex'), sent.digest('hex'));
  },

  'files/bad-request': async ({ folder, create }) => {
    const { sandbox, path } = await folder('bad');
    await sandbox.files.write(`${path}/file`, 'x');
    await fails(sandbox.files.read(path), 'InvalidArgumentError');
    await fails(sandbox.files.write(path, 'x'), 'InvalidArgumentError');
    await fails(sandbox.files.list(`${path}/file`), 'InvalidArgumentError');
    await fails(sandbox.files.makeDir(`${path}/file`), 'InvalidArgumentError');
    await fails(sandbox.files.read(`${path}/absent`), 'FileNotFoundError');
    const nobody = { user: 'nobody-of-that-name' };
    await fails(sandbox.files.read(`${path}/file`, nobody), 'AuthenticationError');
    await fails(sandbox.files.list(path, nobody), 'AuthenticationError');
    const full = await create();
    await full.commands.run(FILL, { user: 'root', timeoutMs: 0 });
    await fails(full.files.write('/home/user/more', 'x'.repeat(8 * 2 ** 20)), 'NotEnoughSpaceError');
  },
};
