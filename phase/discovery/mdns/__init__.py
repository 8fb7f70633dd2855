"""Multicast DNS for this one service: a querier for who looks, a responder for who serves.

Our own, not python-zeroconf, for three reasons that were measured: what that library keeps of a flood has no
bound (46 to 148 MB in 25 s), names that it does not expect end in exceptions in its own tasks, and one
instance hears and answers for all interfaces, so that it cannot tell each network the addresses that are
reachable there. It also took 0.13 s to import, 0.09 s of it beyond asyncio, in a seed.

`wire` reads and writes packets, `sockets` sends and receives them and knows the interface of each, `browser`
looks, `responder` answers, with what it claims in `claims`. Imports asyncio only in `responder`.

Source: RFC 6762 and RFC 6763.
"""

from phase.discovery.mdns.browser import Browser

__all__ = ["Browser"]
