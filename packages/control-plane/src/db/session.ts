/**
 * A session of its own in the database, held for as long as this process wants it: one that breaks is opened again. A
 * pooler between them must keep sessions.
 */
import pg from 'pg';

export interface SessionOptions {
  url: string;
  /** As the server lists it. */
  name: string;
  /** Makes a session that was just opened what it is for; it counts as open from then on. */
  prepare: (client: pg.Client) => Promise<void>;
  /** It broke, and is being opened again. */
  onLost: () => void;
}

const CONNECT_TIMEOUT_MS = 5_000;
const AGAIN_AFTER_MS = 200;

export class Session implements AsyncDisposable {
  readonly #options: SessionOptions;
  #client: pg.Client | undefined;
  #again: NodeJS.Timeout | undefined;
  #closed = false;

  private constructor(options: SessionOptions) {
    this.#options = options;
  }

  /** Resolves when it is open. */
  static async open(options: SessionOptions): Promise<Session> {
    const session = new Session(options);
    await session.#open();
    return session;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#again);
    await this.#client?.end().catch(() => {});
  }

  async #open(): Promise<void> {
    const client = new pg.Client({
      connectionString: this.#options.url,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      keepAlive: true,
      application_name: this.#options.name,
    });
    let broken = false;
    client.on('error', () => {});
    client.on('end', () => {
      broken = true;
      if (this.#client === client) this.#retry();
    });
    try {
      await client.connect();
      // A machine that vanished is noticed by the server within half a minute.
      await client.query(
        'set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3',
      );
      await this.#options.prepare(client);
    } catch (error) {
      await client.end().catch(() => {});
      throw error;
    }
    this.#client = client;
    if (broken) this.#retry();
    if (this.#closed) await client.end().catch(() => {});
  }

  #retry(): void {
    if (this.#closed) return;
    this.#options.onLost();
    const again = () => {
      this.#open().catch(() => {
        if (!this.#closed) this.#again = setTimeout(again, AGAIN_AFTER_MS);
      });
    };
    this.#again = setTimeout(again, AGAIN_AFTER_MS);
  }
}
