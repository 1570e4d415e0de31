/** Where `thaw up` finds and puts things. */
import path from 'node:path';

export class UpPaths {
  /** Builds, disks, the database and the key. */
  readonly data: string;
  /** Sockets. */
  readonly run: string;
  /** The installed version that runs. */
  readonly version: string;

  constructor(roots: { data: string; run: string; version: string }) {
    this.data = roots.data;
    this.run = roots.run;
    this.version = roots.version;
  }

  get cluster(): string {
    return path.join(this.data, 'postgres');
  }

  get identity(): string {
    return path.join(this.data, 'identity');
  }

  /** There while a restore is under way, or was cut short. */
  get restoring(): string {
    return path.join(this.data, '.restore');
  }

  get clusterSocket(): string {
    return path.join(this.run, 'postgres');
  }

  get agentSocket(): string {
    return path.join(this.run, 'agent.sock');
  }

  /** The certificate and its key as the control plane reads them. */
  get tls(): string {
    return path.join(this.run, 'tls');
  }

  /** As `tls`, of the proxy. */
  get proxyTls(): string {
    return path.join(this.run, 'proxy-tls');
  }

  get node(): string {
    return path.join(this.version, 'bin/node');
  }

  /** Compiled sources: only root writes there, so only root's programs start faster. */
  get compileCache(): string {
    return path.join(this.version, 'cache');
  }

  program(name: 'host-agent' | 'host-agent/backup' | 'control-plane'): string {
    const [folder = name, part = ''] = name.split('/');
    return path.join(this.version, 'packages', folder, 'src', part, 'main.ts');
  }
}

/** The API key that the CLI uses when none is given. */
export function keyFile(data: string): string {
  return path.join(data, 'key');
}

export const POSTGRES_VERSIONS = '/usr/lib/postgresql';
