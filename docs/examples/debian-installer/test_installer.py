"""Debian's own installer in the lab: its kernel and its initrd, as the distribution ships them.

The installer asks its questions on the serial console; `priority=critical` and the answers on the command
line leave it at the first one. It has a shell on its second screen, and none on the first: the console is
driven with `expect`, as a person would.
"""

import subprocess

import pytest

#: The lab's names to Debian's.
ARCHES = {"x86_64": "amd64", "arm64": "arm64"}


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Gives the kernel and the initrd of an architecture; apt fetches them from wherever it is set up to."""

    def fetch(arch):
        debian = ARCHES[arch]
        room = tmp_path_factory.mktemp(f"installer-{debian}")
        package = f"debian-installer-12-netboot-{debian}"
        subprocess.run(["apt-get", "download", package], cwd=room, check=True, capture_output=True)
        (deb,) = room.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, room], check=True)
        (kernel,) = room.glob("usr/lib/debian-installer/images/*/*/text/debian-installer/*/linux")
        return kernel, kernel.with_name("initrd.gz")

    return fetch


@pytest.mark.lab(memory=1024, seconds=120)
@pytest.mark.parametrize("arch", ARCHES)
def test_asks_its_first_question(lab, images, arch):
    """With less memory it asks another one: whether low memory mode is all right."""
    kernel, initrd = images(arch)
    vm = lab.vm("installer", arch=arch, kernel=kernel, initrd=initrd, append="TERM=linux", memory=1024)
    vm.start()
    screen = vm.console.spawn(timeout=400)
    screen.expect("Select a language")
    screen.expect("English")


@pytest.mark.lab(memory=512, seconds=120)
@pytest.mark.parametrize("arch", ARCHES)
def test_has_a_shell_where_it_is_told_to(lab, images, arch):
    """`rdinit=/bin/sh` stops before the installer: a shell without /proc, and the lab works over it."""
    kernel, initrd = images(arch)
    vm = lab.vm("shell", arch=arch, kernel=kernel, initrd=initrd, append="rdinit=/bin/sh", memory=512)
    vm.start()
    shell = vm.shell(timeout=300)
    assert "debconf" in shell.succeed("ls /usr/share")
    data = bytes(range(256)) * 400
    shell.succeed("mount -t tmpfs tmpfs /tmp")
    shell.put("/tmp/file", data)
    assert shell.get("/tmp/file") == data
