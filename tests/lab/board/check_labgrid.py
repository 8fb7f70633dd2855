"""A glass board through labgrid: `tox -e labgrid`.

Apart from the other tests, for labgrid brings a pyserial of its own.
"""

import json
import tempfile
from pathlib import Path

import pytest

from lab.board import description, glass
from lab.topology import Lab
from scenarios import lab_guest

ENVIRONMENT = """
targets:
  main:
    resources:
      NetworkSerialPort: {{host: 127.0.0.1, port: {port}, speed: 115200, protocol: rfc2217}}
    drivers:
      SerialDriver: {{}}
      ExternalPowerDriver: {{cmd_on: {on}, cmd_off: {off}}}
"""
BOARD = """
name = "through labgrid"
arch = "x86_64"
console = "ttyS0,115200"
[labgrid]
environment = "environment.yaml"
[medium]
write = {write}
"""


# What labgrid and its pyserial do in old ways is theirs.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_board_that_labgrid_reaches(tmp_path: Path) -> None:
    kernel, initrd = lab_guest.build("x86_64", tmp_path)
    with (
        tempfile.TemporaryDirectory(prefix="g-") as desk,
        glass.running(Path(desk), "x86_64", "--line", "rfc2217", "--noise", "0.0003") as file,
        Lab() as lab,
    ):
        direct = description.read(file)
        (tmp_path / "environment.yaml").write_text(
            ENVIRONMENT.format(
                port=direct.serial.url.rpartition(":")[2],
                on=json.dumps(direct.power.on),
                off=json.dumps(direct.power.off),
            )
        )
        path = tmp_path / "board.toml"
        path.write_text(BOARD.format(write=json.dumps(direct.medium.write)))
        board = lab.board("one", description.read(path), kernel=kernel, initrd=initrd)
        try:
            board.start()
            born = board.shell().succeed("cat /proc/sys/kernel/random/boot_id")
            board.cycle()
            assert board.shell().succeed("cat /proc/sys/kernel/random/boot_id") != born
        finally:
            board.stop()
