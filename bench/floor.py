"""The least that does what the loop does: busybox, wget, sha256sum, kexec, and one WebAssembly run.

No discovery, no signatures, no provider afterwards. Same kernels, same bytes, same machines.
"""

from collections.abc import Mapping
from pathlib import Path

from boot import tree
from phase.boot import cpio
from phase.release.manifest import Manifest
from scenarios import lab_guest

_MODULES = ("virtio_pci", "virtio_net", "virtio_rng", "af_packet", "loop", "squashfs", "overlay")
_APPLETS = (
    "cat", "chroot", "cp", "cpio", "cut", "echo", "insmod", "ip", "mkdir", "mount", "poweroff", "sh",
    "rm", "sha256sum", "sleep", "udhcpc", "wget",
)  # fmt: skip
_START = r"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo on >/proc/sys/kernel/printk_devkmsg
mark() {
    read -r now rest </proc/uptime
    echo "<3>floor-mark {\"step\":\"$1\",\"outcome\":\"ok\",\"t\":$now}" >/dev/kmsg
}
mark @KERNEL@
while read -r module; do insmod "$module"; done </etc/modules
mark @INIT@
"""
_FIRST = """mount -t tmpfs -o size=90% run /run
ip link set lo up
udhcpc -q -f -n -t 20 -T 1 -i eth0 -s /etc/udhcpc >/dev/null
mark network
cd /run && mkdir -p release
get() { wget -q -O "$1" "@URL@/blobs/sha256/$2" && echo "$2  $1" | sha256sum -c >/dev/null; }
get kernel @KERNEL_HASH@ && get second @INITRAMFS_HASH@ && get release/rootfs @ROOTFS_HASH@ || poweroff -f
mark fetch
printf 'release\nrelease/rootfs\n' | cpio -o -H newc >initrd 2>/dev/null
rm -f release/rootfs
cat /second >>initrd
mark verify
kexec -l -i --initrd=initrd --command-line="@CMDLINE@" kernel
mark load
mark handoff
kexec -e
"""
_SECOND = """mkdir -p /layers /root
mount -t tmpfs layers /layers
mkdir /layers/lower /layers/upper /layers/work
mount -t squashfs -o loop,ro /release/rootfs /layers/lower
mount -t overlay -o lowerdir=/layers/lower,upperdir=/layers/upper,workdir=/layers/work system /root
mark rootfs
mount -t proc proc /root/proc
mount -t devtmpfs dev /root/dev
cp /bare.py /root/tmp/bare.py
out=$(echo -n 'Hello, World' | chroot /root /usr/bin/python3 /tmp/bare.py /usr/share/phase/hello.wasm)
[ "$out" = "dlroW ,olleH" ] && mark job
sleep 60
"""


def build(arch: str, directory: Path, manifest: Manifest, *, url: str, cmdline: str, bare: str) -> Path:
    """The first stage's initial RAM disk, which carries the second's.

    Args:
        arch: `x86_64` or `arm64`.
        directory: where to write it.
        manifest: the release it fetches.
        url: from here.
        cmdline: the second kernel's.
        bare: the Python script that runs the module named by its first argument.
    """
    values = {
        "URL": url,
        "CMDLINE": cmdline,
        **{f"{name.upper()}_HASH": artifact.sha256 for name, artifact in manifest.artifacts.items()},
    }
    second = directory / f"floor-{arch}-2.cpio"
    first = directory / f"floor-{arch}.cpio"
    init = _script(_SECOND, {"KERNEL": "kernel2", "INIT": "init2"})
    script = [cpio.regular("bare.py", bare.encode())]
    lab_guest.pack(arch, second, init=init, modules=_MODULES, applets=_APPLETS, files=script)
    root = tree.unpacked(arch) / "root"
    tools = [cpio.regular("sbin/kexec", (root / "sbin/kexec").resolve(), 0o755)]
    for soname, library in tree.needed(root, arch, ["sbin/kexec"]).items():
        tools.append(cpio.regular(soname, library, 0o755))
    init = _script(_FIRST, values | {"KERNEL": "kernel", "INIT": "init"})
    files = [*tools, cpio.regular("second", second)]
    lab_guest.pack(arch, first, init=init, modules=_MODULES, applets=_APPLETS, files=files)
    return first


def _script(script: str, values: Mapping[str, str]) -> str:
    init = _START + script
    for name, value in values.items():
        init = init.replace(f"@{name}@", value)
    return init
