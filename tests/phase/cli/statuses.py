"""What a provider says at `/status`, with changes."""

import json


def said(**members: object) -> bytes:
    """What a provider says of itself, but for these members."""
    whole = {
        "service": "phase-provider",
        "version": "1",
        "uptime_seconds": 1.5,
        "time": 1.5,
        "repository_problem": "",
        "repository_loads": 1,
        "releases": [],
        "mdns": {"running": True, "instances": [], "problem": "", "seen": []},
        "active_requests": 0,
        "requests": 1,
        "bytes_sent": 1,
    }
    return json.dumps(whole | members).encode()
