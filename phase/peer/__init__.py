"""The encrypted network of nodes: transports, relays, and records of what a node can do.

A peer's address is its public key. `phase.peer.transport` is the interface; `phase.peer.iroh` is the real
transport, `phase.peer.memory` one for tests.
"""
