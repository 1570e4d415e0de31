import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Code, ConnectError } from '@connectrpc/connect';
import fc from 'fast-check';
import {
  API_KEY,
  decodeBytes,
  ERROR_KINDS,
  encodeBytes,
  isErrorKind,
  newApiKey,
  newSandboxId,
  newTemplateId,
  SANDBOX_ID,
  TEMPLATE_ID,
  ThawError,
} from './index.ts';
import { fromConnectError, toConnectError } from './rpc.ts';

describe('ids', () => {
  it('are labels that do not repeat', () => {
    const ids = new Set(Array.from({ length: 2000 }, newSandboxId));
    assert.equal(ids.size, 2000);
    for (const id of ids) assert.match(id, SANDBOX_ID);
    assert.match(newTemplateId(), TEMPLATE_ID);
    assert.match(newApiKey(), API_KEY);
    const letters = new Set([...ids].join(''));
    assert.equal(letters.size, 36);
  });
});

describe('bytes in JSON', () => {
  it('come back as they were, however they were cut', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.string({ unit: 'binary' }), fc.nat(40), (raw, text, cut) => {
        const whole = Buffer.concat([raw, Buffer.from(text)]);
        const parts = [whole.subarray(0, cut), whole.subarray(cut)].map((part) => {
          const { data, encoding } = JSON.parse(JSON.stringify(encodeBytes(part)));
          return decodeBytes(data, encoding);
        });
        assert.ok(Buffer.concat(parts).equals(whole));
      }),
    );
  });

  it('stay text when they are', () => {
    assert.deepEqual(encodeBytes(Buffer.from('hällo\0')), { data: 'hällo\0', encoding: 'utf-8' });
    assert.deepEqual(encodeBytes(Buffer.from('\ufeffbom')), { data: '\ufeffbom', encoding: 'utf-8' });
    assert.equal(encodeBytes(Buffer.from([0xe2, 0x82])).encoding, 'base64');
  });
});

describe('errors', () => {
  it('keep their kind over the wire', () => {
    for (const kind of Object.keys(ERROR_KINDS)) {
      assert.ok(isErrorKind(kind));
      const sent = toConnectError(new ThawError(kind, 'why'));
      const received = fromConnectError(new ConnectError(sent.rawMessage, sent.code));
      assert.equal(received.kind, kind);
      assert.equal(received.message, 'why');
    }
  });

  it('hide what is not meant for callers', () => {
    assert.equal(toConnectError(new Error('/secret')).rawMessage, 'internal error');
    const local = new ConnectError(
      'connect ENOENT /run/secret',
      Code.Unavailable,
      undefined,
      undefined,
      new Error('x'),
    );
    assert.equal(fromConnectError(local).kind, 'unavailable');
    assert.doesNotMatch(fromConnectError(local).message, /secret/);
    const own = new ThawError('invalid_request', 'mine');
    assert.equal(fromConnectError(new ConnectError('x', Code.Unknown, undefined, undefined, own)), own);
    assert.equal(new ThawError('invalid_request', 'x', { status: 405 }).status, 405);
  });
});
