"""testinfra on the smallest machine, over its console alone."""

from pathlib import Path

import pytest

from lab import infra
from lab.topology import Lab
from scenarios import lab_guest


@pytest.mark.lab(memory=256)
def test_testinfra_on_a_console(lab: Lab, arch: str, tmp_path: Path) -> None:
    """Files, processes, addresses, commands: answered by the machine, right or wrong."""
    kernel, initrd = lab_guest.build(arch, tmp_path)
    lan = lab.segment("lan")
    vm = lab.vm("one", arch=arch, memory=256, kernel=kernel, initrd=initrd, append="quiet", segments=(lan,))
    vm.start()
    vm.wait_mark("init")
    shell = vm.shell()
    host = infra.host(shell)

    init = host.file("/init")
    assert init.exists
    assert init.is_file
    assert init.mode == 0o755
    assert init.contains("guest-mark")
    assert host.file("/bin/sh").linked_to == "/bin/busybox"
    assert not host.file("/no/such/file").exists
    shell.succeed("printf 'gr\\303\\274n\\n' >/tmp/word")
    assert host.file("/tmp/word").content_string == "gr\u00fcn\n"

    done = host.run("echo out; echo err >&2; exit 3")
    assert (done.rc, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert host.check_output("echo %s", "it's; quoted") == "it's; quoted"

    shell.succeed("sleep 1000 >/dev/null 2>&1 &")
    (sleeper,) = host.process.filter(comm="sleep")
    assert "1000" in sleeper.args
    assert host.process.filter(comm="nobody") == []

    shell.succeed("httpd -p 4000 -h /tmp")
    own = host.addr(str(lab.address(vm, lan)))
    assert own.is_reachable
    assert not own.port(4001).is_reachable
    assert own.port(4000).is_reachable
    assert host.interface("eth0").exists
    # What the machine has no tool for is an error, not a "no".
    with pytest.raises(RuntimeError, match="Could not check"):
        _ = host.package("busybox").is_installed
    with pytest.raises(ValueError, match="service"):
        _ = host.service("httpd").is_running
    assert host.system_info.arch == {"x86_64": "x86_64", "arm64": "aarch64"}[arch]
