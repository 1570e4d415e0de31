#!/bin/sh
# Builds the guest: kernel, initramfs and root images. See guest/README.md.
#   guest/build.sh [--only STEP,…] [--write-lock] [OUT_DIR [BIN_DIR]]
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
node="$here/../node_modules/.bin/node"
[ -x "$node" ] || { echo "guest: no Node in node_modules: run npm ci first" >&2; exit 1; }
exec "$node" "$here/build.ts" "$@"
