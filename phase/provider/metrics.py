"""Counters of a provider, in the Prometheus text format (version 0.0.4)."""

from collections import Counter
from time import monotonic


class Metrics:
    """What a provider counts."""

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
        #: Lines that a log could not take, by the name of the log.
        self.lost_lines: Counter[str] = Counter()
        #: Connections refused for want of a descriptor or memory.
        self.exhausted = 0
        #: Times the repository was read.
        self.loads = 0

    @property
    def uptime(self) -> float:
        """Seconds since start."""
        return monotonic() - self.started

    def render(self, gauges: dict[str, tuple[str, float]]) -> str:
        """Write everything down.

        Args:
            gauges: name -> (help, value) of what others know.
        """
        lines: list[str] = []

        def family(name: str, kind: str, help_: str) -> None:
            lines.extend((f"# HELP {name} {help_}", f"# TYPE {name} {kind}"))

        family("phase_provider_requests_total", "counter", "Requests answered, by route and status.")
        for (route, status), count in sorted(self.requests.items()):
            lines.append(f'phase_provider_requests_total{{route="{route}",status="{status}"}} {count}')
        family("phase_provider_sent_bytes_total", "counter", "Body bytes sent, by route.")
        for route, count in sorted(self.bytes_sent.items()):
            lines.append(f'phase_provider_sent_bytes_total{{route="{route}"}} {count}')
        family("phase_provider_idle_closed_total", "counter", "Connections closed for want of a request.")
        lines.append(f"phase_provider_idle_closed_total {self.idle_closed}")
        own: dict[str, tuple[str, float]] = {
            "phase_provider_active_requests": ("Requests being answered.", self.active),
            "phase_provider_connections": ("Open connections.", self.connections),
            "phase_provider_uptime_seconds": ("Seconds since start.", round(self.uptime, 3)),
        }
        for name, (help_, value) in {**own, **gauges}.items():
            family(name, "gauge", help_)
            lines.append(f"{name} {value}")
        return "\n".join(lines) + "\n"
