"""A Debian as people have it, with systemd and dpkg, as a file system to start machines from.

Packages are unpacked, as for the images, and entered into dpkg's own list. None of their scripts runs, so
either architecture is made on the other, without root. What the machine needs of them is done here. It is
not an image of Phase: scenarios install the Debian package in it.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from boot import cache, debs, tree
from boot.errors import BuildError
from boot.run import run

#: What Debian calls essential, and what makes a small machine of it.
_ESSENTIAL = (
    "base-files", "base-passwd", "bash", "bsdutils", "coreutils", "dash", "debianutils", "diffutils", "dpkg",
    "findutils", "grep", "gzip", "hostname", "init-system-helpers", "libc-bin", "login", "ncurses-base",
    "ncurses-bin", "perl-base", "sed", "sysvinit-utils", "tar", "util-linux",
)  # fmt: skip
_MACHINE = ("busybox-static", "iproute2", "systemd", "systemd-sysv", "udev", "usr-is-merged")
#: Of merged /usr, which Debian has had since version 12.
_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_ENABLED = ("systemd-networkd.service",)
_FILES = {
    "etc/hostname": "debian\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    # A known id: a machine without one would enable what the distribution enables by default.
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/fstab": "",
    "etc/systemd/network/card.network": "[Match]\nName=eth*\n[Network]\nDHCP=ipv4\n",
}


def root(arch: str, packages: Sequence[str], *, files: dict[str, str], enabled: Sequence[str] = ()) -> Path:
    """A squashfs of Debian with these packages and what they depend on, recommendations left out.

    Args:
        arch: `x86_64` or `arm64`.
        packages: names.
        files: path to content, beside what packages bring; units, for example.
        enabled: names of units in `etc/systemd/system` that start with the machine.
    """
    suite: str = tree.packages()["debian"]["suite"]
    found = debs.resolve(suite, arch, debs.closure(suite, arch, [*_ESSENTIAL, *_MACHINE, *packages]))

    def build(into: Path) -> None:
        stage = into / "stage"
        _unpack(suite, arch, found, stage)
        _finish(stage, {**_FILES, **files}, [*_ENABLED, *enabled])
        argv: list[str | Path] = ["mksquashfs", stage, into / "root", "-quiet", "-no-progress", "-noappend"]
        argv += ["-comp", "zstd", "-Xcompression-level", "6", "-all-root", "-no-xattrs"]
        run(argv, timeout=900)
        shutil.rmtree(stage)

    inputs = {
        "debs": [deb.sha256 for deb in found],
        "files": {**_FILES, **files},
        "enabled": [*enabled],
        "builder": cache.files_key({"debian.py": Path(__file__)}),
    }
    return cache.get(f"debian-{arch}", inputs, build) / "root"


def _unpack(suite: str, arch: str, found: Sequence[debs.Deb], stage: Path) -> None:
    """Unpack packages into a merged tree, and have dpkg know them as installed."""
    for name in _MERGED:
        (stage / "usr" / name).mkdir(parents=True)
        (stage / name).symlink_to(f"usr/{name}")
    known = stage / "var/lib/dpkg"
    (known / "info").mkdir(parents=True)
    (known / "updates").mkdir()
    (known / "info/format").write_text("1\n")
    (known / "available").touch()
    status = []
    for deb in found:
        path = debs.path(suite, arch, deb)
        listed = _extract(path, stage)
        fields = run(["dpkg-deb", "--field", path])
        status.append(re.sub(r"^(Package: .*)$", r"\1\nStatus: install ok installed", fields, flags=re.M))
        # Packages that can be there in several architectures have files called after theirs.
        several = re.search(r"^Multi-Arch: same$", fields, flags=re.M)
        name = f"{deb.name}:{debs.DEBIAN_NAMES[arch]}" if several else deb.name
        (known / f"info/{name}.list").write_text("\n".join(["/.", *listed]) + "\n")
    (known / "status").write_text("\n".join(entry.strip() + "\n" for entry in status))


def _extract(deb: Path, stage: Path) -> list[str]:
    """Unpack the files of one package; their absolute paths. Links to directories stay what they are."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as packed:
        done = subprocess.run(
            ["tar", "-x", "-v", "-f", "-", "-C", stage, "--keep-directory-symlink", "--no-same-owner"],
            stdin=packed.stdout, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if packed.returncode or done.returncode:
        raise BuildError(f"{deb.name} cannot be unpacked: {done.stderr[-500:]}")
    listed = [line.removeprefix(".").rstrip("/") for line in done.stdout.splitlines()]
    return [name for name in listed if name]


def _finish(stage: Path, files: dict[str, str], enabled: Sequence[str]) -> None:
    """What the scripts of packages would have done, as far as the machine needs it."""
    for name in ("passwd", "group"):
        shutil.copyfile(stage / f"usr/share/base-passwd/{name}.master", stage / "etc" / name)
    shutil.copyfile(stage / "usr/share/libc-bin/nsswitch.conf", stage / "etc/nsswitch.conf")
    (stage / "usr/bin/sh").unlink(missing_ok=True)
    (stage / "usr/bin/sh").symlink_to("dash")
    for name, content in files.items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).write_text(content)
    wanted = stage / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(parents=True)
    for name in enabled:
        own = (stage / "etc/systemd/system" / name).exists()
        (wanted / name).symlink_to(f"/etc/systemd/system/{name}" if own else f"/lib/systemd/system/{name}")
    # Made again when it is needed; here it may be readable by the user who built this.
    for left in ("etc/.pwd.lock", "etc/shadow", "etc/gshadow"):
        (stage / left).unlink(missing_ok=True)
