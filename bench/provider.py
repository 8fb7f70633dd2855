"""`phase serve` against nginx: the same file, one process each, on loopback.

    python -m bench.provider [MEGABYTES]

Bytes per second over 1, 8 and 64 connections, manifest requests per second, processor time per
gigabyte and request, and memory. Reads with curl, alternating, and takes the best of five rounds: a
busy neighbour only ever slows.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from bench import _serving

BYTES, MANIFESTS, CPU = 1.0, 0.5, 1.2
#: MB by which memory may grow from one connection to sixty-four: what is served must not pass through it.
FLAT = 16.0
ROUNDS = 5
#: Reads of the file in a round, by all connections together: a second's worth.
FILES = 64


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.provider")
    parser.add_argument("megabytes", type=int, nargs="?", default=64)
    megabytes = parser.parse_args().megabytes
    missed: list[str] = []
    warm = 0.0
    with tempfile.TemporaryDirectory(dir=_serving.memory()) as temporary:
        root = Path(temporary)
        # nginx reads as another user when root starts it.
        root.chmod(0o755)
        repository, blob, length = _serving.publish(root, megabytes)
        manifest = "/metadata/1.stable-x86_64.json"
        with (
            _serving.nginx(repository, root / "nginx") as peer,
            _serving.phase(repository) as ours,
        ):
            for connections in (1, 8, 64):
                runs = _both(peer, ours, blob, connections, FILES)
                size = FILES * length / 1e9
                rates = [size / min(run.wall for run in found) for found in runs]
                costs = [min(run.cpu for run in found) / size for found in runs]
                ratio, cost = rates[1] / rates[0], costs[1] / max(costs[0], 1e-9)
                print(
                    f"{connections:2} connections: nginx {rates[0]:.2f} GB/s, phase {rates[1]:.2f} GB/s, "
                    f"ratio {ratio:.2f} (budget {BYTES}); CPU s/GB {costs[0]:.3f}, {costs[1]:.3f}, "
                    f"ratio {cost:.2f} (budget {CPU})"
                )
                missed += [f"bytes/s over {connections}"] * (ratio < BYTES)
                missed += [f"CPU over {connections}"] * (cost > CPU)
                warm = warm or ours.peak()
            count = 4000
            runs = _both(peer, ours, manifest, 8, count)
            rates = [count / min(run.wall for run in found) for found in runs]
            costs = [1e6 * min(run.cpu for run in found) / count for found in runs]
            print(
                f"manifests, 8 connections: nginx {rates[0]:.0f}/s, phase {rates[1]:.0f}/s, "
                f"ratio {rates[1] / rates[0]:.2f} (budget {MANIFESTS}); "
                f"CPU us each {costs[0]:.0f}, {costs[1]:.0f}"
            )
            missed += ["manifests/s"] * (rates[1] / rates[0] < MANIFESTS)
            grown = ours.peak() - warm
            print(
                f"memory at most: nginx {peer.peak():.0f} MB, phase {ours.peak():.0f} MB, "
                f"{grown:.1f} MB of it since it served one connection (budget {FLAT:.0f})"
            )
            missed += ["memory"] * (grown >= FLAT)
    print(f"budgets missed: {', '.join(missed) or 'none'}")
    return 1 if missed else 0


def _both(
    peer: _serving.Server, ours: _serving.Server, path: str, connections: int, count: int
) -> tuple[list[_serving.Run], list[_serving.Run]]:
    found: tuple[list[_serving.Run], list[_serving.Run]] = ([], [])
    for number in range(ROUNDS + 1):
        for server, runs in zip((peer, ours), found, strict=True):
            run = _serving.read(server, path, connections, count)
            if number:  # the first ones fill caches
                runs.append(run)
    return found


if __name__ == "__main__":
    sys.exit(main())
