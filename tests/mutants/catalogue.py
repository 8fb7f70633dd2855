"""Protections of the product, each taken out in turn: what is removed, where, and which tests must notice.

The old text occurs exactly once in its file. Keep it short and unlikely to change for other reasons.
"""

from tests.mutants import (
    boots,
    cage,
    crowds,
    judged,
    mirrors,
    modes,
    networks,
    nodes,
    proofs,
    publishing,
    secured,
    segments,
    unnoticed,
    updates,
)

MUTANTS = (
    *boots.MUTANTS,
    *cage.MUTANTS,
    *crowds.MUTANTS,
    *judged.MUTANTS,
    *proofs.MUTANTS,
    *mirrors.MUTANTS,
    *modes.MUTANTS,
    *networks.MUTANTS,
    *nodes.MUTANTS,
    *publishing.MUTANTS,
    *secured.MUTANTS,
    *segments.MUTANTS,
    *unnoticed.MUTANTS,
    *updates.MUTANTS,
)
