"""What a thousand slow readers and two hundred half-open connections cost the others on `phase serve`.

    python -m bench.slow [SLOW] [HALF_OPEN]

Eight curls read a file over and over; bytes per second without and with the crowd, alternating. The slow
ones ask for the same file and take a few KiB a second of it. Of the half-open ones one half says nothing,
the other half of a request's head; a connection that is cut off is opened anew. They come from many
addresses of loopback, because one address has a limit of its own.
"""

import argparse
import http.client
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import _serving

BUDGET = 0.8
ROUNDS = 5
CONNECTIONS = 8
#: Seconds for what fills at first, such as the buffers of a thousand sockets.
SETTLE = 2.0
_COUNT = 96
_MEGABYTES = 64
#: Port, path, how many slow, how many half open. Says `ready` when all are connected.
_CROWD = r"""
import select, socket, sys, time
port, path, slow, half = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
question = f"GET {path} HTTP/1.1\r\nHost: crowd\r\n\r\n".encode()
def connect(number):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.bind((f"127.0.{1 + number // 100}.{1 + number % 100}", 0))
    sock.connect(("127.0.0.1", port))
    if number < slow:
        sock.sendall(question)
    elif number % 2:
        sock.sendall(question[:20])
    sock.setblocking(False)
    return sock
crowd = [connect(number) for number in range(slow + half)]
print("ready", flush=True)
reopened = 0
while not select.select([sys.stdin], [], [], 1)[0]:
    for number, sock in enumerate(crowd):
        try:
            if sock.recv(4096):
                continue
        except BlockingIOError:
            continue
        except OSError:
            pass
        sock.close()
        crowd[number] = connect(number)
        reopened += 1
print(reopened, flush=True)
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.slow")
    parser.add_argument("slow", type=int, nargs="?", default=1000)
    parser.add_argument("half", type=int, nargs="?", default=200)
    arguments = parser.parse_args()
    slow, half = arguments.slow, arguments.half
    _allow_many_files(slow + half + 64)
    with tempfile.TemporaryDirectory(dir=_serving.memory()) as temporary:
        repository, blob, length = _serving.publish(Path(temporary), _MEGABYTES)
        rates: tuple[list[float], list[float]] = ([], [])
        ratios = []
        with _serving.phase(repository) as server:
            _serving.read(server, blob, CONNECTIONS, _COUNT)  # fills caches
            for _ in range(ROUNDS):
                quiet = _rate(server, blob, length)
                command = [sys.executable, "-c", _CROWD, server.url.rpartition(":")[2], blob]
                crowd = subprocess.Popen(
                    [*command, str(slow), str(half)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                assert crowd.stdin is not None
                assert crowd.stdout is not None
                assert crowd.stdout.readline() == "ready\n"
                while _metric(server, "phase_provider_active_requests") < slow:
                    time.sleep(0.1)
                time.sleep(SETTLE)
                crowded = _rate(server, blob, length)
                there = _metric(server, "phase_provider_connections")
                crowd.stdin.close()
                reopened = int(crowd.stdout.readline())
                crowd.wait(30)
                while _metric(server, "phase_provider_connections") > 1:
                    time.sleep(0.1)
                # Less than all of them would be a measurement of something else.
                assert there >= slow + half - reopened, (there, reopened)
                for found, rate in zip(rates, (quiet, crowded), strict=True):
                    found.append(rate)
                ratios.append(crowded / quiet)
            peak = server.peak()
    ratio = statistics.median(ratios)
    print(
        f"{CONNECTIONS} readers alone {statistics.median(rates[0]):.2f} GB/s, beside {slow} slow and {half} "
        f"half-open connections {statistics.median(rates[1]):.2f} GB/s"
    )
    print(f"each round: {json.dumps([round(found, 2) for found in ratios])}; memory at most {peak:.0f} MB")
    print(f"ratio {ratio:.2f} (budget {BUDGET})")
    return 0 if ratio >= BUDGET else 1


def _rate(server: _serving.Server, path: str, length: int) -> float:
    """Gigabytes per second."""
    return _COUNT * length / 1e9 / _serving.read(server, path, CONNECTIONS, _COUNT).wall


def _metric(server: _serving.Server, name: str) -> int:
    port = int(server.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def _allow_many_files(count: int) -> None:
    """For the crowd, which inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


if __name__ == "__main__":
    sys.exit(main())
