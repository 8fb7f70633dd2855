"""The answer to `GET /metrics`: the counters, and the other facts about a provider that are numbers."""

from collections.abc import Mapping

from phase.provider.health import Part
from phase.provider.metrics import Values
from phase.provider.store import Store
from phase.provider.together import Together


def measured(store: Store, together: Together, *, now: float, more: Mapping[str, tuple[str, Values]]) -> str:
    """All metrics, in the Prometheus text format.

    Args:
        store: the repository.
        together: the counters of all processes, and their problems.
        now: Unix seconds.
        more: of what else this process does.
    """
    counted, _ = together.all()
    broken = {problem.part for problem in together.problems()}
    workers, restarts = together.workers()
    catalog = store.current()
    own: dict[str, tuple[str, Values]] = {
        "phase_provider_degraded": (
            "1 for a part of the provider that has a problem.",
            {f'part="{part}"': int(part in broken) for part in Part},
        ),
        "phase_provider_renew_seconds": (
            "Seconds until a person must have renewed a role: until a quarter of its usual time is left.",
            {f'role="{role}"': round(moment - now, 1) for role, moment in catalog.renew_by.items()},
        ),
        "phase_provider_expires_seconds": (
            "Seconds until the signature of a role expires; negative since it has.",
            {f'role="{role}"': round(until - now, 1) for role, until in catalog.expires.items()},
        ),
        "phase_provider_workers": ("Processes that serve.", workers),
        "phase_provider_worker_restarts_total": ("Processes that were started anew.", restarts),
        "phase_provider_releases": ("Channels and architectures offered.", len(catalog.releases)),
        "phase_provider_refused_too_many_of_one": (
            "Connections refused since one client had too many.",
            counted.refused[429],
        ),
        "phase_provider_refused_too_many": (
            "Connections refused since there were too many.",
            counted.refused[503],
        ),
        "phase_provider_repository_loads": ("Times the repository was read.", counted.loads),
        "phase_provider_repository_ok": (
            "1 unless the newest release cannot be read.",
            int(Part.REPOSITORY not in broken),
        ),
    }
    return counted.render({**own, **more})
