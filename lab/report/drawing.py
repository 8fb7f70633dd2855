"""Draws what machines did as one picture: a bar for each, on one clock. Plain SVG, no script."""

import math
from collections.abc import Sequence
from html import escape

import msgspec

#: What follows the background, so that one drawing serves light and dark pages. Also used by the matrix.
STYLE = """
.tl text{font:13px system-ui,sans-serif;fill:#1f2937}
.tl .axis text{font-size:12px;fill:#4b5563}.tl .axis path{stroke:#d1d5db;fill:none}
.tl .boot{fill:#475569}.tl .step{fill:#1d4ed8}.tl .again{fill:#b45309}
.tl .bad{fill:#b91c1c}.tl .on{fill:#fff;font-size:12px}
@media (prefers-color-scheme:dark){.tl text{fill:#e5e7eb}.tl .axis text{fill:#9ca3af}
.tl .axis path{stroke:#374151}.tl .boot{fill:#94a3b8}.tl .step{fill:#60a5fa}
.tl .again{fill:#f59e0b}.tl .bad{fill:#f87171}.tl .on{fill:#0b1220}}
"""
_LEGEND = (
    ("boot", "firmware and kernel"),
    ("step", "a step"),
    ("again", "refused or tried again"),
    ("bad", "failed"),
)
_WIDTH, _LEFT, _RIGHT = 960, 190, 24
_BAR, _ROW, _TOP = 28, 40, 6
#: Pixels of a letter, about; a label that does not fit is left to the tooltip.
_LETTER = 7.0
_TICKS = 8
#: Seconds that the whole picture shows at least.
_SHORTEST = 0.01
#: More phases than any boot has; marks come from a console, and so from strangers.
MOST = 64
_LONGEST = 40


class Phase(msgspec.Struct, frozen=True):
    """One phase of a track, in seconds since the topology's first power-on."""

    name: str
    start: float
    end: float
    outcome: str = "ok"


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """What one machine did; from a stage on, if it names one: then it has not booted."""

    machine: str
    arch: str
    phases: list[Phase]
    stage: str = ""

    @property
    def label(self) -> str:
        """What stands beside it."""
        return f"{self.machine[:24]} {f'from {self.stage}' if self.stage else self.arch}"


def draw(tracks: Sequence[Track]) -> str:
    """One picture of a topology's boot.

    Args:
        tracks: its machines, in the order to show them.

    Returns:
        An SVG document that brings its own style; it can also stand inside a page.
    """
    last = max((phase.end for track in tracks for phase in track.phases[:MOST]), default=0.0)
    last = max(last, _SHORTEST)
    scale = (_WIDTH - _LEFT - _RIGHT) / last
    bottom = _TOP + _ROW * len(tracks)
    parts = [_axis(last, scale, bottom)]
    for number, track in enumerate(tracks):
        parts += _bar(track, _TOP + _ROW * number, scale)
    parts.append(_legend(bottom + 40))
    height = bottom + 56
    names = ", ".join(track.label for track in tracks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tl" role="img" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}"><title>Timeline of {escape(names)}: {last:.1f} s</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>"
    )


def printable(text: str, most: int = _LONGEST) -> str:
    """A machine's own words as XML can carry them, and not too many of them."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:most])


def _bar(track: Track, top: int, scale: float) -> list[str]:
    middle = top + _BAR / 2 + 4
    fits = int(_LEFT / _LETTER) - 1
    name = track.label if len(track.label) <= fits else f"{track.label[: fits - 1]}…"
    parts = [f'<text x="0" y="{middle}">{escape(name)}</text>']
    for phase in track.phases[:MOST]:
        x, width = _LEFT + phase.start * scale, (phase.end - phase.start) * scale
        took = f"{phase.end - phase.start:.2f} s"
        kind = _kind(phase)
        told = printable(phase.name if phase.outcome == "ok" else f"{phase.name} {phase.outcome}")
        # A gap of one pixel keeps neighbours apart whatever their colours.
        parts.append(
            f'<g><title>{escape(told)}: {took}, from {phase.start:.2f} s</title><rect class="{kind}" '
            f'x="{x:.1f}" y="{top}" width="{max(width - 1, 0.5):.1f}" height="{_BAR}" rx="2"/>'
        )
        for label in (f"{told} {took}", told):
            if len(label) * _LETTER + 8 <= width:
                parts.append(f'<text class="on" x="{x + 5:.1f}" y="{middle}">{escape(label)}</text>')
                break
        parts.append("</g>")
    return parts


def _kind(phase: Phase) -> str:
    if phase.outcome == "failed":
        return "bad"
    if phase.outcome != "ok":
        return "again"
    if phase.name.startswith(("kernel", "firmware")):
        return "boot"
    return "step"


def _axis(last: float, scale: float, bottom: int) -> str:
    step = _step(last)
    parts = []
    for number in range(int(last / step) + 1):
        x = _LEFT + number * step * scale
        parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{number * step:g} s</text>')
    return f'<g class="axis">{"".join(parts)}</g>'


def _step(last: float) -> float:
    """Seconds between two ticks: 1, 2 or 5 times a power of ten."""
    least = last / _TICKS
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= least)


def _legend(y: int) -> str:
    parts = []
    x = _LEFT
    for kind, words in _LEGEND:
        parts.append(f'<rect class="{kind}" x="{x}" y="{y - 10}" width="12" height="12" rx="2"/>')
        parts.append(f'<text x="{x + 18}" y="{y}">{words}</text>')
        x += 40 + int(len(words) * _LETTER)
    return f'<g class="axis">{"".join(parts)}</g>'
