/** What a case of the suite gets: the SDK under test and sandboxes that end with the case. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Sandbox, SandboxOpts } from 'e2b';

/** The newest SDK's types; older ones lack some of it. */
export type Sdk = typeof import('e2b');
export type Mode = 'plain' | 'tls';
export type Case = (stage: Stage) => Promise<void>;
export type Cases = Record<string, Case>;

const TIMEOUT_MS = 300_000;

export class Stage {
  readonly sdk: Sdk;
  readonly version: string;
  readonly mode: Mode;
  #made: Sandbox[] = [];
  #shared: Promise<Sandbox> | undefined;

  constructor(sdk: Sdk, version: string, mode: Mode) {
    this.sdk = sdk;
    this.version = version;
    this.mode = mode;
  }

  /** Of this case alone; killed at its end. */
  readonly create = async (options: SandboxOpts = {}): Promise<Sandbox> => {
    const { template, ...rest } = options;
    const wish = { timeoutMs: TIMEOUT_MS, ...rest };
    const made =
      template === undefined
        ? await this.sdk.Sandbox.create(wish)
        : await this.sdk.Sandbox.create(template, wish);
    return this.keep(made);
  };

  /** Kills this sandbox too when the case ends. */
  readonly keep = (sandbox: Sandbox): Sandbox => {
    this.#made.push(sandbox);
    return sandbox;
  };

  /** One for all cases that leave a sandbox as usable as they found it. */
  readonly shared = (): Promise<Sandbox> => {
    this.#shared ??= this.sdk.Sandbox.create({ timeoutMs: 3_600_000 });
    return this.#shared;
  };

  /** A folder of its own in the shared sandbox. */
  readonly folder = async (name: string): Promise<{ sandbox: Sandbox; path: string }> => {
    const sandbox = await this.shared();
    const path = `/home/user/${name}`;
    await sandbox.files.makeDir(path);
    return { sandbox, path };
  };

  /** The end of a case; after a failure the shared sandbox is not trusted any more. */
  async end(failed: boolean): Promise<void> {
    const gone = this.#made;
    this.#made = [];
    if (failed && this.#shared !== undefined) {
      const shared = await this.#shared.catch(() => undefined);
      if (shared !== undefined) gone.push(shared);
      this.#shared = undefined;
    }
    await Promise.allSettled(gone.map((sandbox) => sandbox.kill()));
  }

  async close(): Promise<void> {
    await this.#shared?.then((sandbox) => sandbox.kill()).catch(() => {});
  }

  /** Where a port of a sandbox is found: by TLS as the SDK says, else by the same name at the plain listener. */
  readonly preview = (sandbox: Sandbox, port: number): string => {
    const host = sandbox.getHost(port);
    if (this.mode === 'tls') return `https://${host}`;
    return `http://${host.split(':')[0]}:${new URL(process.env.E2B_SANDBOX_URL!).port}`;
  };
}

/** Asserts that it fails with an error of this class of the SDK, or of one of these if older SDKs have another. */
export async function fails(promise: Promise<unknown>, ...names: string[]): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof Error);
    const ancestry: string[] = [];
    for (let kind = error.constructor; kind !== Error && kind?.name; kind = Object.getPrototypeOf(kind)) {
      ancestry.push(kind.name);
    }
    assert.ok(
      names.some((name) => ancestry[0] === name || error.name === name),
      `${names.join(' or ')} was expected, it is ${error.name} (${ancestry}): ${error.message}`,
    );
    return error;
  }
  return assert.fail(`${names.join(' or ')} was expected, and nothing failed`);
}

/** Tries until it does not throw, at most `withinMs`; then throws what it last threw. */
export async function eventually<T>(attempt: () => Promise<T> | T, withinMs = 20_000): Promise<T> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await sleep(200);
    }
  }
}

/** Output of a command that must succeed. */
export async function sh(sandbox: Sandbox, script: string): Promise<string> {
  return (await sandbox.commands.run(script)).stdout.trim();
}
