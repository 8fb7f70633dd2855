"""The one list of what Phase needs from the machine it is built and tested on.

Everything else is made from it: what `make` installs, what the doctor reports, what the documentation of
other distributions names. Python packages, Node among them, are declared in `pyproject.toml` and `tox.ini`.
"""

import argparse
from collections.abc import Collection
from typing import NamedTuple

#: The oldest Python the project runs on.
PYTHON = (3, 11)
#: What a machine is made ready for: the loop, every scenario, the unit tests. Each needs what the one before
#: it does, and more.
PURPOSES = ("loop", "scenarios", "tests")
#: The architectures whose machines the lab runs.
ARCHES = ("x86_64", "arm64")


class Need(NamedTuple):
    """One thing the machine must have.

    Attributes:
        name: what people call it.
        why: what would not work without it.
        packages: the Debian packages that bring it.
        commands: any of these on the search path is the tool.
        version: arguments that make the command print its version; empty when no version matters.
        minimum: the oldest version that does.
        files: any of these files is the thing, when it is not a command.
        modules: Python modules which the interpreter that runs the set-up must have.
        arch: the only architecture whose machines need it; empty when every run does.
        purpose: the least of `PURPOSES` that needs it.
    """

    name: str
    why: str
    packages: tuple[str, ...]
    commands: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    minimum: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    arch: str = ""
    purpose: str = "loop"


def needed(purpose: str = PURPOSES[-1], arches: Collection[str] = ()) -> tuple[Need, ...]:
    """What a run needs.

    Args:
        purpose: one of `PURPOSES`.
        arches: of the machines it starts; empty for every architecture.
    """
    covered = PURPOSES[: PURPOSES.index(purpose) + 1]
    return tuple(
        need
        for need in NEEDS
        if need.purpose in covered and (not arches or not need.arch or need.arch in arches)
    )


def choose(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say what a machine is to be ready for."""
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=PURPOSES,
        default=PURPOSES[-1],
        help="what this machine is for; each includes the one before (default: tests)",
    )
    parser.add_argument(
        "--arch",
        action="append",
        choices=ARCHES,
        help="the architecture of the lab's machines; may be repeated; both when left out",
    )


NEEDS = (
    Need(
        name="python venv",
        why="makes the virtual environment that tox lives in",
        packages=("python3-venv",),
        modules=("venv", "ensurepip"),
    ),
    Need(
        name="qemu x86_64",
        why="runs the x86_64 machines of the lab",
        packages=("qemu-system-x86",),
        commands=("qemu-system-x86_64",),
        version=("--version",),
        minimum=(7, 2),
        arch="x86_64",
    ),
    Need(
        name="qemu arm64",
        why="runs the ARM64 machines of the lab",
        packages=("qemu-system-arm",),
        commands=("qemu-system-aarch64",),
        version=("--version",),
        minimum=(7, 2),
        arch="arm64",
    ),
    Need(
        name="seabios",
        why="BIOS firmware of x86_64 machines",
        packages=("seabios",),
        files=("/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"),
        arch="x86_64",
    ),
    Need(
        name="ipxe roms",
        why="network boot in QEMU's network cards",
        packages=("ipxe-qemu",),
        files=(
            "/usr/lib/ipxe/qemu/efi-virtio.rom",
            "/usr/share/ipxe/qemu/efi-virtio.rom",
            "/usr/share/qemu/efi-virtio.rom",
        ),
    ),
    Need(
        name="uefi x86_64",
        why="UEFI firmware of x86_64 machines",
        packages=("ovmf",),
        files=(
            "/usr/share/OVMF/OVMF_CODE_4M.fd",
            "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
            "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        ),
        arch="x86_64",
        purpose="scenarios",
    ),
    Need(
        name="uefi arm64",
        why="UEFI firmware of ARM64 machines",
        packages=("qemu-efi-aarch64",),
        files=(
            "/usr/share/AAVMF/AAVMF_CODE.fd",
            "/usr/share/edk2/aarch64/QEMU_CODE.fd",
            "/usr/share/edk2/aarch64/QEMU_EFI.fd",
        ),
        arch="arm64",
        purpose="scenarios",
    ),
    Need(
        name="u-boot arm64",
        why="a boot loader with a prompt, on glass boards",
        packages=("u-boot-qemu",),
        files=("/usr/lib/u-boot/qemu_arm64/u-boot.bin", "/usr/share/u-boot/qemu_arm64/u-boot.bin"),
        arch="arm64",
        purpose="scenarios",
    ),
    Need(
        name="apt",
        why="fetches the packages of both architectures that images are made of",
        packages=("apt",),
        commands=("apt-get",),
        version=("--version",),
        minimum=(2, 2),
    ),
    Need(
        name="dpkg-deb",
        why="unpacks the packages that images are made of",
        packages=("dpkg",),
        commands=("dpkg-deb",),
    ),
    Need(
        name="debian keys",
        why="verifies the packages that images are made of",
        packages=("debian-archive-keyring",),
        files=("/usr/share/keyrings/debian-archive-keyring.gpg",),
    ),
    Need(
        name="mksquashfs",
        why="packs the system's root file system",
        packages=("squashfs-tools",),
        commands=("mksquashfs",),
        version=("-version",),
        minimum=(4, 5),
    ),
    Need(
        name="mke2fs",
        why="makes the disks and partitions on which machines keep releases",
        packages=("e2fsprogs",),
        commands=("mke2fs",),
        version=(),
        purpose="scenarios",
    ),
    Need(
        name="mtools",
        why="makes the file system of boot media",
        packages=("mtools",),
        commands=("mformat", "mcopy", "mdir", "mmd", "mtype"),
        version=("--version",),
        minimum=(4, 0, 19),
        purpose="scenarios",
    ),
    Need(
        name="sfdisk",
        why="makes the partition table of boot media",
        packages=("fdisk",),
        commands=("sfdisk",),
        version=("--version",),
        minimum=(2, 36),
        purpose="scenarios",
    ),
    Need(
        name="xorriso",
        why="makes boot media for CDs",
        packages=("xorriso",),
        commands=("xorriso",),
        version=("--version",),
        minimum=(1, 5),
        purpose="scenarios",
    ),
    Need(
        name="sbsign",
        why="signs boot media for Secure Boot",
        packages=("sbsigntool",),
        commands=("sbsign", "sbverify"),
        version=("--version",),
        minimum=(0, 9, 2),
        purpose="scenarios",
    ),
    Need(
        name="swtpm",
        why="is the TPM of machines that have one",
        packages=("swtpm",),
        commands=("swtpm",),
        version=("--version",),
        minimum=(0, 7),
        purpose="scenarios",
    ),
    Need(
        name="qemu-img",
        why="makes boot media for virtual machines",
        packages=("qemu-utils",),
        commands=("qemu-img",),
        version=("--version",),
        minimum=(7, 2),
        purpose="scenarios",
    ),
    Need(
        name="lsblk",
        why="says what is on a device before a boot medium is written to it",
        packages=("util-linux",),
        commands=("lsblk",),
        version=("--version",),
        minimum=(2, 37),
        purpose="scenarios",
    ),
    Need(
        name="zstd",
        why="compresses initramfs images",
        packages=("zstd",),
        commands=("zstd",),
        version=("--version",),
        minimum=(1, 4),
    ),
    Need(
        name="xz",
        why="unpacks kernel modules and packages",
        packages=("xz-utils",),
        commands=("xz",),
    ),
    Need(
        name="depmod",
        why="indexes the kernel modules of an image",
        packages=("kmod",),
        commands=("depmod",),
        version=("--version",),
        minimum=(27,),
    ),
    Need(
        name="avahi-browse",
        why="sees, as a foreign browser, what a provider advertises",
        packages=("avahi-utils",),
        commands=("avahi-browse",),
        purpose="scenarios",
    ),
    Need(
        name="avahi-daemon",
        why="answers avahi-browse in the tests",
        packages=("avahi-daemon",),
        commands=("avahi-daemon",),
        purpose="scenarios",
    ),
    Need(
        name="dbus-daemon",
        why="connects avahi-browse with its daemon",
        packages=("dbus",),
        commands=("dbus-daemon",),
        purpose="scenarios",
    ),
    Need(
        name="cpio",
        why="reads, as a foreign reader, the archives that images are made of",
        packages=("cpio",),
        commands=("cpio",),
        purpose="tests",
    ),
    Need(
        name="busybox",
        why="runs the images' own scripts in tests, and asks machines from this host",
        packages=("busybox-static",),
        files=("/bin/busybox", "/usr/bin/busybox"),
        purpose="scenarios",
    ),
    Need(
        name="tshark",
        why="reads, as a foreign reader, what the lab captured",
        packages=("tshark",),
        commands=("tshark",),
        purpose="scenarios",
    ),
    Need(
        name="chromium",
        why="opens the reports as a person would, and shows what they ask of the network",
        packages=("chromium",),
        commands=("chromium", "chromium-browser", "google-chrome"),
        purpose="tests",
    ),
    Need(
        name="curl",
        why="the foreign HTTP client that a provider is tried with",
        packages=("curl",),
        commands=("curl",),
        purpose="scenarios",
    ),
    Need(
        name="wget",
        why="another foreign HTTP client",
        packages=("wget",),
        commands=("wget",),
        purpose="scenarios",
    ),
    Need(
        name="aria2c",
        why="a foreign HTTP client with many connections, in scenarios and measurements",
        packages=("aria2",),
        commands=("aria2c",),
        purpose="scenarios",
    ),
    Need(
        name="ip",
        why="makes the network cards of tests, in namespaces of their own",
        packages=("iproute2",),
        commands=("ip",),
        purpose="scenarios",
    ),
    Need(
        name="systemd-analyze",
        why="reads the units of the Debian package and of the documentation",
        packages=("systemd",),
        commands=("systemd-analyze",),
        purpose="tests",
    ),
    Need(
        name="skopeo",
        why="copies releases between registries, as people do",
        packages=("skopeo",),
        commands=("skopeo",),
        purpose="tests",
    ),
    Need(
        name="rsync",
        why="copies a repository, as people do",
        packages=("rsync",),
        commands=("rsync",),
        purpose="tests",
    ),
    Need(
        name="softhsm",
        why="stands in for a hardware token, for keys on tokens",
        packages=("softhsm2",),
        commands=("softhsm2-util",),
        purpose="tests",
    ),
    Need(
        name="php",
        why="runs the SDK of PHP",
        packages=("php-cli",),
        commands=("php",),
        version=("--version",),
        minimum=(8, 2),
        purpose="tests",
    ),
    Need(
        name="php's curl",
        why="carries the requests of the SDK of PHP",
        packages=("php-curl",),
        files=(
            *(f"/etc/php/8.{minor}/mods-available/curl.ini" for minor in range(2, 7)),
            "/etc/php.d/20-curl.ini",
        ),
        purpose="tests",
    ),
    Need(
        name="openssl",
        why="makes keys for Secure Boot, and verifies a receipt by hand, as its page shows",
        packages=("openssl",),
        commands=("openssl",),
        version=("version",),
        minimum=(3, 0),
        purpose="scenarios",
    ),
    Need(
        name="git",
        why="names the commit a report is about",
        packages=("git",),
        commands=("git",),
    ),
    Need(
        name="dpkg-buildpackage",
        why="builds the Debian package of Phase, which a scenario installs",
        packages=("dpkg-dev", "make"),
        commands=("dpkg-buildpackage",),
        purpose="scenarios",
    ),
    Need(
        name="debhelper",
        why="builds the Debian package of Phase",
        packages=("debhelper",),
        commands=("dh",),
        purpose="scenarios",
    ),
    Need(
        name="debian's pip",
        why="fills the Debian package of Phase with wheels",
        packages=("python3-pip",),
        files=("/usr/lib/python3/dist-packages/pip/__init__.py",),
        purpose="scenarios",
    ),
    Need(
        name="debian's python libraries",
        why="are what the Debian package of Phase leads to",
        packages=(
            "python3-attr",
            "python3-frozenlist",
            "python3-idna",
            "python3-multidict",
            "python3-pycparser",
        ),
        files=("/usr/lib/python3/dist-packages/frozenlist/__init__.py",),
        purpose="scenarios",
    ),
)
