#!/bin/sh
# Installs what Thaw needs on a Debian 12 machine and puts a built version into the prefix. Every step is
# cached: a second run takes seconds. The last line of standard output is the version's folder.
set -eu
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
fail() { printf 'thaw: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail 'run this as root: Thaw creates namespaces, taps and mounts'
[ "$(uname -m)" = x86_64 ] || fail "this machine is $(uname -m); Thaw runs on x86_64"
command -v npm >/dev/null || fail 'npm is missing: install Node.js 20 or newer'
command -v cargo >/dev/null || fail 'cargo is missing: install Rust (rustup.rs)'
[ -e /dev/userfaultfd ] || fail 'no /dev/userfaultfd: Thaw needs Linux 6.1 or newer with userfaultfd'
[ -e /dev/fuse ] || modprobe fuse 2>/dev/null || fail 'no /dev/fuse: load the fuse module'
[ -e /dev/net/tun ] || modprobe tun 2>/dev/null || fail 'no /dev/net/tun: load the tun module'

missing=
for package in $(grep -v '^#' scripts/debian-packages.txt); do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
  say "Debian packages:$missing"
  command -v apt-get >/dev/null || fail "these Debian packages are missing:$missing"
  # Thaw runs a database cluster of its own; the package's default one is not wanted.
  if ! [ -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
  fi
  apt-get update -q >&2
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2
fi

if ! [ -x node_modules/.bin/node ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  say 'npm packages'
  npm ci --no-audit --no-fund --loglevel=error >&2
fi

target=x86_64-unknown-linux-musl
flags=
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ] && ! rustup target add "$target" >&2; then
  say 'no musl target here: linking statically against glibc instead'
  target=x86_64-unknown-linux-gnu
  flags='-C target-feature=+crt-static'
fi

# Formatting, types and the format's vectors need no guest and no prefix.
[ "${1:-}" != --check-only ] || exit 0

say "Rust binaries ($target)"
RUSTFLAGS="$flags" cargo build --release --locked --target "$target" --workspace --exclude thaw-preload --exclude thaw-fake-firecracker >&2
cargo build --release --locked -p thaw-preload >&2

say 'guest kernel and images'
guest=${THAW_CACHE:-/var/cache/thaw}/guest
sh guest/build.sh "$guest" "target/$target/release" >&2

say 'installing to the prefix'
node_modules/.bin/node scripts/install.ts --binaries "target/$target/release" --preload target/release --guest "$guest"
