"""Multicast DNS for this one service: a browser for clients, and a responder for providers.

It is our own, and not python-zeroconf, for three measured reasons. The memory of that library has no limit
in a flood (46 to 148 MB in 25 s). Unexpected names end in exceptions in its own tasks. And one instance
hears and answers for all interfaces, so it cannot tell each network the addresses that are reachable there.
Its import also took 0.13 s in a seed, 0.09 s of it beyond asyncio.

`wire` reads and writes packets; `sockets` sends and receives them, with the interface of each; `browser`
searches; `responder` answers, with the names in `claims`. Only `responder` imports asyncio.

Source: RFC 6762 and RFC 6763.
"""

from phase.discovery.mdns.browser import Browser

__all__ = ["Browser"]
