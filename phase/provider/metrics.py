"""Counters of a provider, in the Prometheus text format (version 0.0.4)."""

from collections import Counter
from collections.abc import Mapping
from time import monotonic

#: One value, or one for each set of labels.
Values = float | Mapping[str, float]


class Metrics:
    """The counters of a provider."""

    def __init__(self) -> None:
        self.started = monotonic()
        #: (route, status) -> requests.
        self.requests: Counter[tuple[str, int]] = Counter()
        self.bytes_sent: Counter[str] = Counter()
        self.active = 0
        self.connections = 0
        #: Connections closed because no request, or no further one, came in time.
        self.idle_closed = 0
        #: Connections over a limit, by the status they were refused with.
        self.refused: Counter[int] = Counter()
        #: Failures of background tasks, by name.
        self.failures: Counter[str] = Counter()
        #: Lines that could not be written, by the name of the log.
        self.lost_lines: Counter[str] = Counter()
        #: Connections refused for want of a descriptor or memory.
        self.exhausted = 0
        #: Blobs of the releases, by state.
        self.blobs: Counter[str] = Counter()
        #: Times the repository was read.
        self.loads = 0

    @property
    def uptime(self) -> float:
        """Seconds since start."""
        return monotonic() - self.started

    def render(self, more: dict[str, tuple[str, Values]]) -> str:
        """Format all metrics.

        Args:
            more: further metrics: name -> (help, value or values); a name with `_total` is a counter.
        """
        own: dict[str, tuple[str, Values]] = {
            "phase_provider_requests_total": (
                "Requests answered, by route and status.",
                {f'route="{route}",status="{status}"': n for (route, status), n in self.requests.items()},
            ),
            "phase_provider_sent_bytes_total": (
                "Body bytes sent, by route.",
                _labelled("route", self.bytes_sent),
            ),
            "phase_provider_idle_closed_total": (
                "Connections closed for want of a request.",
                self.idle_closed,
            ),
            "phase_provider_active_requests": ("Requests being answered.", self.active),
            "phase_provider_connections": ("Open connections.", self.connections),
            "phase_provider_uptime_seconds": ("Seconds since start.", round(self.uptime, 3)),
            "phase_provider_task_failures_total": (
                "Failures of background tasks.",
                _labelled("task", self.failures),
            ),
            "phase_provider_lost_log_lines_total": (
                "Lines that a log could not take.",
                _labelled("log", self.lost_lines),
            ),
            "phase_provider_refused_exhausted_total": (
                "Connections refused for want of a file descriptor or memory.",
                self.exhausted,
            ),
            "phase_provider_blobs": (
                "Files that the releases name, by state.",
                _labelled("state", self.blobs),
            ),
        }
        return formatted({**own, **more})


def _labelled(label: str, counted: Counter[str]) -> dict[str, float]:
    return {f'{label}="{name}"': count for name, count in counted.items()}


def formatted(metrics: Mapping[str, tuple[str, Values]]) -> str:
    """Metrics in the text format of Prometheus.

    Args:
        metrics: name -> (help, value or values by their labels); a name with `_total` is a counter.
    """
    lines: list[str] = []
    for name, (help_, values) in metrics.items():
        kind = "counter" if name.endswith("_total") else "gauge"
        lines.extend((f"# HELP {name} {help_}", f"# TYPE {name} {kind}"))
        if isinstance(values, Mapping):
            lines.extend(f"{name}{{{labels}}} {value}" for labels, value in sorted(values.items()))
        else:
            lines.append(f"{name} {values}")
    return "\n".join(lines) + "\n"
