"""The seed's program: one boot of the machine it runs on."""

from phase import marks
from phase.boot.linux import Linux
from phase.boot.machine import Machine
from phase.boot.seed import Seed
from phase.errors import PhaseError


def main(machine: Machine | None = None) -> int:
    """Boot. Returns only when it could not: 1, with what failed on the console.

    Args:
        machine: the one to boot; the one this runs on when left out.
    """
    seed: Seed | None = None
    try:
        seed = Seed(machine or Linux())
        seed.run()
    except PhaseError as error:
        stage = seed.stage if seed else "init"
        marks.emit(stage, "failed", reason=str(error), final=True)
        marks.say(f"giving up at {stage}: {error}")
    except Exception as error:
        # Ours, not a provider's or the network's; who watches must not wait for the next mark.
        stage = seed.stage if seed else "init"
        marks.emit(stage, "failed", reason=f"internal error: {error!r}", final=True)
        raise
    return 1
