"""A machine with Debian and systemd on it, and the Debian package of Phase to install there."""

import re
import shutil
from pathlib import Path

from boot import cache, debian, tree
from boot.debs import DEBIAN_NAMES
from boot.run import run
from lab.net.segment import Segment
from lab.qemu.command import CONSOLES, Disk
from lab.qemu.vm import VM
from lab.topology import Lab
from scenarios import lab_guest

PROJECT = tree.HERE.parent
#: What the package depends on; a test compares it with what the package says.
DEPENDS = (
    "libc6", "libgcc-s1", "python3", "python3-attr", "python3-frozenlist", "python3-idna",
    "python3-multidict", "python3-pycparser", "python3.11", "systemd",
)  # fmt: skip
_MODULES = (
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "af_packet", "squashfs", "loop", "overlay",
    "autofs4",
)  # fmt: skip
_APPLETS = ("chroot", "echo", "insmod", "mkdir", "mount", "sh", "sleep", "switch_root")
_INIT = r"""#!/bin/sh
mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module; do insmod "$module"; done </etc/modules
mkdir /layers /root
until [ -b /dev/vdb ]; do sleep 0.1; done
mount -t tmpfs layers /layers
mkdir /layers/lower /layers/upper /layers/work
mount -t squashfs -o ro /dev/vda /layers/lower
mount -t overlay -o lowerdir=/layers/lower,upperdir=/layers/upper,workdir=/layers/work system /root
mkdir -p /root/media
mount -t squashfs -o ro /dev/vdb /root/media
mount --move /dev /root/dev
mount --move /proc /root/proc
exec switch_root /root /sbin/init
"""
_CONSOLE = """[Unit]
Description=A shell on the console, for the lab
After=network.target
[Service]
ExecStart=/bin/sh /etc/lab-console
StandardInput=tty-force
StandardOutput=tty
TTYPath=/dev/console
WorkingDirectory=/root
Environment=HOME=/root
Restart=always
"""
_SHELL = r"""read -r now rest </proc/uptime
echo "<3>guest-mark {\"step\":\"system\",\"outcome\":\"ok\",\"t\":$now}" >/dev/kmsg
exec sh
"""


def package(arch: str) -> Path:
    """The Debian package of this checkout, built as a person builds it.

    It is for the version of Python that built it, so this host's Debian must be the one of the machines.
    """
    # Without the lab, which is no part of it and changes more often.
    places = ("debian", "phase")
    sources = {
        f"{place}/{name}": path for place in places for name, path in cache.sources(PROJECT / place).items()
    }
    sources |= {name: PROJECT / name for name in ("LICENSE", "README.md", "pyproject.toml")}

    def build(into: Path) -> None:
        checkout = into / "phase"
        for name, path in sources.items():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, checkout / name)
        # -d: what it builds with is in lab/doctor/needs.py, by other names on other distributions.
        argv = ["dpkg-buildpackage", "-d", "-us", "-uc", "-b", f"-a{DEBIAN_NAMES[arch]}"]
        quick = {"DPKG_DEB_COMPRESSOR_TYPE": "gzip", "DPKG_DEB_COMPRESSOR_LEVEL": "1"}
        run(argv, cwd=checkout, env=quick, timeout=900)
        shutil.rmtree(checkout)

    found = cache.get(f"package-{arch}", {"sources": cache.files_key(sources)}, build)
    return next(found.glob("phase_*.deb"))


def newer(deb: Path, version: str, into: Path) -> Path:
    """The same package as a later version."""
    unpacked, out = into / "unpacked", into / f"phase_{version}.deb"
    run(["dpkg-deb", "-R", deb, unpacked])
    control = unpacked / "DEBIAN/control"
    control.write_text(
        re.sub(r"^Version: .*$", f"Version: {version}", control.read_text(), flags=re.MULTILINE)
    )
    run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", unpacked, out])
    shutil.rmtree(unpacked)
    return out


def machine(
    lab: Lab,
    name: str,
    arch: str,
    segment: Segment,
    media: Path,
    work: Path,
    *,
    disks: tuple[Disk, ...] = (),
) -> VM:
    """A running Debian, with the directory `media` at /media and a root shell on its console.

    Args:
        lab: that it is in.
        name: of the machine.
        arch: of the machine.
        segment: where its card is plugged in.
        media: what it has at /media.
        work: where its files go.
        disks: more of them; the first is /dev/vdc.
    """
    root = debian.root(
        arch,
        DEPENDS,
        files={"etc/systemd/system/lab-console.service": _CONSOLE, "etc/lab-console": _SHELL},
        enabled=["lab-console.service"],
    )
    line = CONSOLES[arch]
    initrd, disk = work / f"debian-{arch}.cpio", work / "media.squashfs"
    lab_guest.pack(arch, initrd, init=_INIT, modules=_MODULES, applets=_APPLETS)
    argv: list[str | Path] = ["mksquashfs", media, disk, "-quiet", "-no-progress", "-noappend", "-all-root"]
    run([*argv, "-noI", "-noD", "-noF"])
    vm = lab.vm(
        name,
        arch=arch,
        memory=768,
        kernel=tree.kernel(tree.unpacked(arch) / "root"),
        initrd=initrd,
        append="quiet panic=-1 net.ifnames=0 systemd.show_status=0 "
        f"systemd.mask=serial-getty@{line}.service systemd.mask=systemd-binfmt.service",
        disks=(Disk(root, access="read-only"), Disk(disk, access="read-only"), *disks),
        segments=(segment,),
    )
    vm.start()
    return vm


def refusal() -> str:
    """Why this host cannot build a package for the machines; empty where it can."""
    python = run(
        ["/usr/bin/python3", "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"]
    ).strip()
    return (
        "" if python in DEPENDS else f"the machines have {DEPENDS[-2]}, and Debian's Python here is {python}"
    )
