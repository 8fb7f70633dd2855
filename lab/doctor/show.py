"""Shows the doctor's findings: for people, and for scripts."""

import json

from lab.doctor.examine import Health, Measure

_MARK = {
    "ok": "  ok     ",
    "missing": "  MISSING",
    "old": "  TOO OLD",
    "short": "  SHORT  ",
    "no": "  no     ",
}


def as_text(health: Health) -> str:
    """A page for the terminal."""
    lines = [health.host.name, "", "tools"]
    for tool in health.tools:
        if tool.state == "ok":
            lines.append(f"{_MARK['ok']} {tool.need.name:<14} {tool.version or '-':<9} {tool.where}")
            continue
        least = f", at least {'.'.join(map(str, tool.need.minimum))}" if tool.need.minimum else ""
        found = f", found {tool.version or 'none'}" if tool.state == "old" else ""
        lines.append(f"{_MARK[tool.state]} {tool.need.name:<14} {tool.need.why}{least}{found}")
    lines += ["", "host"]
    for measure in health.measures:
        mark = _MARK["ok"] if measure.ok else _MARK["short"]
        lines.append(f"{mark} {measure.name:<14} {_amount(measure, measure.found)}")
        if not measure.ok:
            lines.append(f"{'':<10}{_amount(measure, measure.wanted)} are wanted. {measure.remedy}")
    lines += ["", f"accelerator: {health.accel.accel}"]
    lines += [
        f"{_MARK['ok' if rung.ok else 'no']} {rung.name:<14} {rung.detail}".rstrip()
        for rung in health.accel.rungs
    ]
    if health.accel.remedy:
        lines.append(f"{'':<10}{health.accel.remedy}")
    lines.append("")
    if health.remedy:
        lines += ["To get what is missing:", f"  {health.remedy}"]
    lines.append("The lab can run here." if health.ready else "The lab cannot run here yet.")
    return "\n".join(lines)


def as_json(health: Health) -> str:
    """The same for scripts."""
    return json.dumps(
        {
            "ready": health.ready,
            "system": health.host.name,
            "tools": [
                {
                    "name": tool.need.name,
                    "state": tool.state,
                    "version": tool.version,
                    "path": tool.where,
                    "why": tool.need.why,
                    "packages": tool.need.packages,
                }
                for tool in health.tools
            ],
            "host": [
                {"name": measure.name, "found": measure.found, "wanted": measure.wanted, "ok": measure.ok}
                for measure in health.measures
            ],
            "accelerator": {
                "name": health.accel.accel,
                "rungs": [rung._asdict() for rung in health.accel.rungs],
                "remedy": health.accel.remedy,
            },
            "remedy": health.remedy,
        },
        indent=2,
    )


def _amount(measure: Measure, value: int) -> str:
    return f"{value / (1 << 30):.1f} GiB" if measure.unit == "bytes" else str(value)
