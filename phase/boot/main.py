"""The seed's program: one boot of the machine it runs on."""

from phase import marks
from phase.boot.linux import Linux
from phase.boot.machine import Machine
from phase.boot.reasons import following
from phase.boot.seed import Seed
from phase.errors import PhaseError

#: Lines of a trace that are shown.
_TRACE = 20


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
        give_up(seed, error)
    except Exception as error:
        # Ours, not a provider's or the network's; who watches must not wait for the next mark.
        stage = seed.stage if seed else "init"
        marks.emit(stage, "failed", reason=f"internal error: {error!r}", final=True)
        import traceback  # most boots do not need it, and it takes a while to load

        for line in "".join(traceback.format_exception(error)).splitlines()[-_TRACE:]:
            marks.say(line)
        marks.say("that is a mistake in phase itself: please report these lines")
    return 1


def give_up(seed: Seed | None, error: PhaseError) -> None:
    """Say why no release was booted, what each provider's part in it was, and what happens next."""
    stage = seed.stage if seed else "init"
    marks.emit(stage, "failed", reason=str(error), final=True)
    reasons = seed.reasons.summary() if seed else []
    if seed is None or stage != "trust" or not reasons:
        marks.say(f"giving up at {stage}: {error}")
    else:
        # Each provider's reason follows; the error is one of them.
        wanted = f"{seed.parameters.channel}/{seed.arch}"
        marks.say(f"giving up at trust: no provider has proved a release of {wanted}")
    for line in reasons:
        marks.say(f"  {line}")
    if seed is not None and (line := seed.remembered.suspicion(error)):
        marks.say(line)
    if seed is None:
        marks.say("next: what phase.rescue= says; a restart in 10 s where it says nothing")
        return
    shell = seed.machine.config("allow-shell") is not None
    marks.say(following(*seed.rescue, shell=shell))
