import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Code, ConnectError } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import { loggable } from './log.ts';

describe('an error in the log', () => {
  it('has nothing that a guest said', () => {
    const said = new ConnectError('words of a guest', Code.Internal);
    const answer = { status: 500, body: 'words of a guest' };
    for (const cause of [said, answer, [said, answer], new Error('broken', { cause: said })]) {
      const text = JSON.stringify(
        loggable(new ThawError('agent_error', 'the guest agent failed', { cause })),
      );
      assert.doesNotMatch(text, /words of a guest/);
      assert.match(text, /the guest agent failed/);
    }
    assert.match(JSON.stringify(loggable(said)), /Internal/);
    assert.match(JSON.stringify(loggable({ ...answer })), /500/);
  });

  it('has our own words, causes and codes', () => {
    const cause = Object.assign(new Error('no space left'), { code: 'ENOSPC' });
    const text = JSON.stringify(loggable(new ThawError('internal', 'not sealed', { cause })));
    for (const word of ['not sealed', 'no space left', 'ENOSPC', 'stack'])
      assert.ok(text.includes(word), word);
    assert.match(JSON.stringify(loggable(new Error('x', { cause: 'start: timeout' }))), /start: timeout/);
  });
});
