"""A firewall between segments: rules, the first that matches counts, and answers always pass."""

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Literal

from lab.net.datagram import TIMEOUTS, Clock, Flow, addresses, flow_of, quoted

Action = Literal["accept", "drop", "reject"]
#: Flows remembered; the one silent for longest is forgotten first.
_FLOWS = 4096


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to datagrams that match in everything that is said here.

    Attributes:
        action: `accept`; `drop`, silently; `reject`, with a TCP reset or an ICMP error.
        from_segment: name of the one it comes from.
        to_segment: name of the one it would go to.
        protocol: such as `TCP`.
        port: the receiver's.
        source: addresses of senders.
        destination: addresses of receivers.
    """

    action: Action
    from_segment: str | None = None
    to_segment: str | None = None
    protocol: int | None = None
    port: int | None = None
    source: IPv4Network | None = None
    destination: IPv4Network | None = None

    def matches(self, datagram: bytes, came: str, goes: str) -> bool:
        """Whether it is about such a datagram."""
        source, destination = addresses(datagram)
        flow = flow_of(datagram)
        return (
            self.from_segment in (None, came)
            and self.to_segment in (None, goes)
            and self.protocol in (None, datagram[9])
            and (self.port is None or (flow is not None and flow.destination_port == self.port))
            and (self.source is None or source in self.source)
            and (self.destination is None or destination in self.destination)
        )


class Firewall:
    """Judges datagrams and remembers the flows it has accepted.

    Attributes:
        rules: in order; may be set at any time, flows that have begun go on. Without a match, a datagram
            passes.
    """

    def __init__(self, rules: tuple[Rule, ...], clock: Clock) -> None:
        self.rules = rules
        self._clock = clock
        self._flows: OrderedDict[Flow, float] = OrderedDict()

    def judge(self, datagram: bytes, came: str, goes: str) -> Action:
        """What to do with a datagram, told by its addresses and ports inside."""
        flow = flow_of(datagram)
        if self._known(flow or quoted(datagram)):
            return "accept"
        action: Action = "accept"
        for rule in self.rules:
            if rule.matches(datagram, came, goes):
                action = rule.action
                break
        if action == "accept" and flow is not None:
            if len(self._flows) >= _FLOWS:
                self._flows.popitem(last=False)
            self._flows[flow] = self._clock() + TIMEOUTS[flow.protocol]
        return action

    def _known(self, flow: Flow | None) -> bool:
        now = self._clock()
        for way in (flow, flow.back()) if flow else ():
            if self._flows.get(way, 0) > now:
                self._flows[way] = now + TIMEOUTS[way.protocol]
                self._flows.move_to_end(way)
                return True
        return False
