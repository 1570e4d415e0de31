/** What the shipped code draws at random comes from the seed while this lasts: ids decide in what order things are listed. */
import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import type { Random } from './random.ts';

export class Entropy implements Disposable {
  readonly #real = {
    randomBytes: crypto.randomBytes,
    randomUUID: crypto.randomUUID,
    randomInt: crypto.randomInt,
    getRandomValues: globalThis.crypto.getRandomValues,
  };

  constructor(random: Random) {
    const bytes = (size: number) => Buffer.from(Array.from({ length: size }, () => random.below(256)));
    Object.assign(crypto, {
      randomBytes: bytes,
      randomUUID: () => uuid(bytes(16)),
      randomInt: (low: number, high?: number) =>
        high === undefined ? random.below(low) : low + random.below(high - low),
    });
    globalThis.crypto.getRandomValues = (array) => {
      const view = array as unknown as Uint8Array;
      new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(bytes(view.byteLength));
      return array;
    };
    syncBuiltinESMExports();
  }

  [Symbol.dispose](): void {
    const { getRandomValues, ...module } = this.#real;
    Object.assign(crypto, module);
    globalThis.crypto.getRandomValues = getRandomValues;
    syncBuiltinESMExports();
  }
}

function uuid(bytes: Buffer): string {
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
