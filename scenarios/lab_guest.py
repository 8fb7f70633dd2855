"""A machine that is nothing but a kernel and busybox: what the scenarios of the lab itself start."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from boot import tree
from lab.qemu.command import Firmware
from phase.boot import cpio

_MODULES = ("virtio_pci", "virtio_net", "af_packet", "virtio_blk", "virtio_console", "ext4", "pvpanic-pci")
#: UEFI, of the distribution.
FIRMWARE = {
    "x86_64": Firmware(Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")),
    "arm64": Firmware(Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.fd")),
}
_APPLETS = (
    "base64", "cat", "chmod", "cttyhack", "cut", "date", "dd", "dmesg", "echo", "fsfreeze", "grep", "head",
    "httpd", "insmod", "ip", "ls", "mkdir", "mount", "nc", "ping", "poweroff", "ps", "readlink", "reboot",
    "rm", "sed", "seq", "setsid", "sh", "sha256sum", "sleep", "stat", "stty", "tail", "test", "tty",
    "udhcpc", "uname", "wc", "wget",
)  # fmt: skip
_INIT = r"""#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
echo on >/proc/sys/kernel/printk_devkmsg
mark() {
    read -r now rest </proc/uptime
    echo "<3>guest-mark {\"step\":\"$1\",\"outcome\":\"ok\",\"t\":$now}" >/dev/kmsg
}
mark kernel
while read -r module; do insmod "$module"; done </etc/modules
ip link set lo up
[ -d /sys/class/net/eth0 ] && udhcpc -q -f -n -t 20 -T 1 -i eth0 -s /etc/udhcpc && mark network
# A shell on a virtio port. The port comes some time after its driver, and only one process may open it: the
# shell reads and writes through two others.
for card in /sys/bus/virtio/drivers/virtio_console/virtio*; do
    [ -e "$card" ] || continue
    (
        while set -- /dev/vport*; [ ! -c "$1" ]; do sleep 0.1; done
        while :; do cat <&3 | sh 2>&1 | cat >&3; sleep 1; done 3<>"$1"
    ) &
done
mark init
while :; do setsid cttyhack sh; done
"""
_UDHCPC = """#!/bin/sh
case "$1" in
deconfig) ip link set "$interface" up ;;
bound)
    ip address add "$ip/$mask" dev "$interface"
    for gateway in $router; do ip route add default via "$gateway" dev "$interface"; done
    ;;
esac
"""


def build(arch: str, directory: Path) -> tuple[Path, Path]:
    """A kernel and an initial RAM disk.

    The machine prints the marks `kernel`, `network` (when it has a card, and was given an address) and
    `init`; then its console has a shell, and so has each virtio port.

    Args:
        arch: `x86_64` or `arm64`.
        directory: where to write the RAM disk.
    """
    initrd = directory / f"guest-{arch}.cpio"
    pack(arch, initrd, init=_INIT)
    return tree.kernel(tree.unpacked(arch) / "root"), initrd


def pack(
    arch: str,
    out: Path,
    *,
    init: str,
    modules: Sequence[str] = _MODULES,
    applets: Sequence[str] = _APPLETS,
    files: Sequence[cpio.Node] = (),
) -> None:
    """Write an initial RAM disk of busybox, kernel modules and an init script.

    Args:
        arch: `x86_64` or `arm64`.
        out: where to.
        init: the script; finds the modules' paths, in order, in `/etc/modules`.
        modules: by name, with what they depend on.
        applets: of busybox.
        files: anything else.
    """
    root = tree.unpacked(arch) / "root"
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        stage = Path(temporary)
        tree.kernel_modules(root, modules, stage)
        nodes = [
            *(cpio.directory(name) for name in ("bin", "dev", "proc", "run", "sys", "tmp")),
            cpio.character("dev/console", 5, 1),
            cpio.character("dev/null", 1, 3, 0o666),
            cpio.regular("init", init.encode(), 0o755),
            cpio.regular("bin/busybox", (root / "bin/busybox").resolve(), 0o755),
            *(cpio.symlink(f"bin/{name}", "busybox") for name in applets),
            *cpio.tree(stage),
            cpio.regular("etc/udhcpc", _UDHCPC.encode(), 0o755),
            *files,
        ]
        with out.open("wb") as handle:
            cpio.write(handle, nodes)


def with_files(initrd: Path, out: Path, files: Sequence[cpio.Node]) -> Path:
    """A RAM disk with some files more: another archive behind it.

    Args:
        initrd: from `build` or `pack`.
        out: where to write it.
        files: to add.
    """
    with out.open("wb") as handle:
        handle.write(initrd.read_bytes())
        handle.write(bytes(-handle.tell() % 4))
        cpio.write(handle, files)
    return out
