/** What the static Rust programs are built for; the same choice as in setup.sh. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

const MUSL = 'x86_64-unknown-linux-musl';
const GNU = 'x86_64-unknown-linux-gnu';

/** The target, and the environment that cargo needs for it. */
export function rustTarget(): { target: string; env: NodeJS.ProcessEnv } {
  const sysroot = spawnSync('rustc', ['--print', 'sysroot'], { encoding: 'utf8' }).stdout.trim();
  const musl = existsSync(path.join(sysroot, 'lib/rustlib', MUSL));
  return musl
    ? { target: MUSL, env: process.env }
    : { target: GNU, env: { ...process.env, RUSTFLAGS: '-C target-feature=+crt-static' } };
}
