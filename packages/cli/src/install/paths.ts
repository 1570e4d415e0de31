/** Where an installation puts things. Below another root (`--root`) everything is as it would be below `/`. */
import path from 'node:path';

export class InstallPaths {
  /** Where the files are written; empty for this machine itself. */
  readonly root: string;
  /** As the installed programs see it. */
  readonly prefix: string;

  constructor({ root, prefix }: { root: string; prefix: string }) {
    this.root = root;
    this.prefix = prefix;
  }

  /** A path of the installed system, as this process reaches it. */
  at(file: string): string {
    return this.root === '' ? file : path.join(this.root, file);
  }

  get versions(): string {
    return path.join(this.prefix, 'versions');
  }

  version(id: string): string {
    return path.join(this.versions, id);
  }

  /** A link to the version that runs. */
  get current(): string {
    return path.join(this.prefix, 'current');
  }

  get program(): string {
    return path.join(this.current, 'bin/thaw');
  }

  /** What `install` made, for `uninstall`. */
  get record(): string {
    return path.join(this.prefix, 'install.json');
  }

  get launcher(): string {
    return '/usr/local/bin/thaw';
  }

  get settings(): string {
    return '/etc/thaw/thaw.env';
  }

  get unit(): string {
    return `/etc/systemd/system/${UNIT}`;
  }

  get sandboxesUnit(): string {
    return `/etc/systemd/system/${SANDBOXES_UNIT}`;
  }
}

export const DEFAULT_PREFIX = '/opt/thaw';
export const UNIT = 'thaw.service';
export const SANDBOXES_UNIT = 'thaw-sandboxes.service';

/** In a release's folder: what its files must be, as `sha256sum` checks it. */
export const CHECKSUMS = 'SHA256SUMS';

/** In every version's folder: which one it is. */
export function versionFile(version: string): string {
  return path.join(version, 'version.json');
}

export function sandboxesFolder(run: string): string {
  return path.join(run, 'sandboxes');
}

export function keeperSocket(run: string, id: string): string {
  return path.join(sandboxesFolder(run), id, 'keeper.sock');
}
