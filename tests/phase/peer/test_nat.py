"""Peers behind NATs and firewalls."""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab.net.nat import SYMMETRIC
from lab.net.packet import UDP
from tests.phase.peer.worlds import KEEPS_PORTS, NO_UDP, PORT, said, world


def _kinds(lines: list[dict[str, Any]]) -> list[str]:
    assert not any("error" in line for line in lines), lines
    return [line["kind"] for line in lines if "kind" in line]


def test_both_behind_nats_begin_over_the_relay_and_go_direct(tmp_path: Path) -> None:
    with world(tmp_path, KEEPS_PORTS, KEEPS_PORTS) as there:
        lines = there.call(6)
        # Only the relay is named, so it began there; the first answer may be late enough to be direct.
        assert _kinds(lines) in (["relay", "direct"], ["direct"])
        assert lines[-1]["taken"][-1] == "direct"
        # It is the other box that is talked to, and each knows what it looks like from outside.
        assert lines[-2]["remote"] == f"{there.boxes[0].address('middle')}:{PORT}"
        assert f"{there.boxes[1].address('middle')}:{PORT}" in lines[-1]["hosts"]


def test_symmetric_nats_stay_on_the_relay(tmp_path: Path) -> None:
    with world(tmp_path, SYMMETRIC, SYMMETRIC) as there:
        assert _kinds(there.call(5)) == ["relay"]


def test_relay_that_dies_and_comes_back_loses_no_connection(tmp_path: Path) -> None:
    with ExitStack() as stack:
        there = stack.enter_context(world(tmp_path, SYMMETRIC, SYMMETRIC))
        with there.program(there.relay, "relay", "8080") as relay:
            assert said(relay)["ready"]
            server = stack.enter_context(there.program(there.nodes[0], "serve", str(PORT), there.url))
            words = ("call", str(PORT), there.url, said(server)["key"], "15")
            client = stack.enter_context(there.program(there.nodes[1], *words))
            assert said(client)["kind"] == "relay"
        time.sleep(2)
        relay = stack.enter_context(there.program(there.relay, "relay", "8080"))
        assert said(relay)["ready"]
        last = said(client)
        assert "error" not in last, last
        # The last answers came over the new relay.
        assert last["longest"] > 1
        assert last["after"] > 10, last


def test_no_udp_stays_on_the_relay(tmp_path: Path) -> None:
    with world(tmp_path, KEEPS_PORTS, KEEPS_PORTS, rules=NO_UDP) as there:
        assert _kinds(there.call(5)) == ["relay"]
        homes = {box.address("middle") for box in there.boxes}
        assert not there.middle.seen(lambda packet: packet.protocol == UDP and packet.source in homes)


def test_one_behind_a_symmetric_nat_goes_direct(tmp_path: Path) -> None:
    with world(tmp_path, SYMMETRIC, None) as there:
        assert _kinds(there.call(5))[-1] == "direct"
