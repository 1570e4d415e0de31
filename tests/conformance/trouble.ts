/**
 * A control plane whose host fails as it is told, in clear text: for the errors that no healthy host gives. What it has done
 * wrong once is over, so each SDK has one of its own.
 */
import assert from 'node:assert/strict';
import { ThawError } from '@thaw/api';
import { TestPlane } from '../../packages/control-plane/src/testing.ts';

export class Trouble implements AsyncDisposable {
  readonly env: Record<string, string>;
  readonly #plane: TestPlane;

  private constructor(plane: TestPlane, env: Record<string, string>) {
    this.#plane = plane;
    this.env = env;
  }

  static async start(): Promise<Trouble> {
    await using undo = new AsyncDisposableStack();
    const plane = undo.use(await TestPlane.start());
    const create = async (): Promise<string> => {
      const { status, body } = await plane.ask('POST', '/v2/sandboxes', { templateID: 'base' });
      assert.equal(status, 201);
      return body.sandboxID;
    };
    const { agent } = plane;
    const [busy, hung, forked] = [await create(), await create(), await create()];
    assert.equal((await plane.ask('POST', `/sandboxes/${hung}/pause`)).status, 204);
    agent.sandboxes.get(hung)!.build!.guestUnresponsive = true;
    agent.failNext('resumeSandbox', new ThawError('timeout', 'the guest did not answer in time'));
    for (const rpc of ['getHost', 'pauseSandbox', 'createSnapshot', 'forkSandbox'] as const)
      agent.failNext(rpc, new ThawError('unavailable', 'the host is away'));
    for (const kind of ['not_found', 'unauthenticated', 'exhausted', 'unavailable', 'internal'] as const)
      agent.failNext('createSandbox', new ThawError(kind, `not started: ${kind}`));
    const env = {
      PATH: process.env.PATH ?? '',
      HOME: process.env.HOME ?? '/root',
      E2B_API_KEY: plane.key,
      E2B_API_URL: plane.url,
      THAW_TEST_BUSY: busy,
      THAW_TEST_HUNG: hung,
      THAW_TEST_FORKED: forked,
    };
    undo.move();
    return new Trouble(plane, env);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#plane[Symbol.asyncDispose]();
  }
}
