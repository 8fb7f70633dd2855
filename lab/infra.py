"""Testinfra on a machine of the lab: `host.file`, `host.process`, `host.addr` ... over its shell.

    host = lab.infra.host(vm.shell())
    assert host.file("/etc/hostname").contains("node")

What a question needs must be in the guest: `stat` for files, `ps` for processes, `nc` and `ping` for
addresses.
"""

import secrets
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host
from testinfra.modules.addr import Addr
from testinfra.modules.process import Process

from lab.errors import MachineError
from lab.shell import Shell


class ShellBackend(BaseBackend):
    """Runs testinfra's commands on a console.

    Args:
        shell: where; testinfra and the scenario use it by turns.
        timeout: seconds for one command.
    """

    NAME = "lab"

    def __init__(self, shell: Shell, *, timeout: float = 60) -> None:
        super().__init__("machine")
        self._shell = shell
        self._timeout = timeout
        # A machine of the lab may have no Python to ask for it, which is what testinfra would do.
        self._encoding = "utf-8"

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        """Run a command; its output and its errors apart.

        Args:
            command: with `%s` for each argument.
            args: quoted, and put in there.

        Raises:
            MachineError: the answer did not arrive whole.
        """
        text = self.get_command(command, *args)
        # The shell gives one stream: errors go into a file and follow, behind a random word.
        nonce = secrets.token_hex(8)
        answer = self._shell.run(
            f"for d in /tmp /run /dev; do e=$d/.lab-infra-{nonce}; ( : >$e ) 2>/dev/null && break; done\n"
            f"(\n{text}\n) 2>$e; r=$?; echo {nonce}; cat $e; rm -f $e; exit $r",
            timeout=self._timeout,
        )
        out, found, errors = answer.output.rpartition(f"{nonce}\n")
        if not found:
            raise MachineError(f"`{text}` gave no answer", evidence=answer.output[-2000:])
        return self.result(answer.code, text.encode(), out.encode(), errors.encode())


class _Busybox(Process):
    """Processes where `ps` is a busybox of any configuration: testinfra's own asks for columns few have."""

    @classmethod
    def get_module_class(cls, host: Host) -> type[Process]:
        """This one: it has been chosen."""
        return cls

    def _get_processes(self, **filters: Any) -> list[dict[str, Any]]:
        columns = [*sorted({"pid", "comm", *filters} - {"args"}), "args"]
        listed = self.check_output("ps -o %s", ",".join(columns)).splitlines()[1:]
        found = []
        for line in listed:
            words = line.split(None, len(columns) - 1)
            values = [int(word) if word.isdecimal() else word for word in words[: len(columns) - 1]]
            # A kernel thread's arguments are its name in brackets; one without arguments has none.
            found.append(dict(zip(columns, [*values, *words[len(columns) - 1 :]], strict=True)))
        return found

    def _get_process_attribute_by_pid(self, pid: int, name: str) -> dict[str, Any]:
        for process in self._get_processes(**{name: None}):
            if process["pid"] == pid:
                return process | {"lstart": None}
        raise RuntimeError(f"process {pid} is gone")


class _Port:
    """A port that is connected to, by any `nc`: a busybox's knows no `-z`."""

    def __init__(self, host: Host, name: str, port: int | str) -> None:
        self._host = host
        self._name = name
        self._port = str(port)

    @property
    def is_reachable(self) -> bool:
        """Whether somebody listens there."""
        return bool(self._host.run("nc -w 2 %s %s </dev/null", self._name, self._port).rc == 0)


class _Address(Addr):
    """Addresses as testinfra's, where `nc` is a busybox's."""

    def port(self, port: int | str) -> _Port:
        """A port of this address."""
        return _Port(self._host, self.name, port)


class MachineHost(Host):
    """As testinfra's, for guests of busybox too."""

    @property
    def process(self) -> Any:
        """Processes of the machine."""
        if self.file("/bin/ps").linked_to == "/bin/busybox":
            return _Busybox.get_module(self)
        return self.__getattr__("process")

    @property
    def addr(self) -> Any:
        """Addresses as the machine reaches them."""
        return _Address.get_module(self)


def host(shell: Shell, *, timeout: float = 60) -> Host:
    """The `host` of testinfra, on a machine.

    Args:
        shell: the machine's.
        timeout: seconds for one command.
    """
    backend = ShellBackend(shell, timeout=timeout)
    made = MachineHost(backend)
    backend.set_host(made)
    return made
