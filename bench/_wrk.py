"""Load on a server by wrk: it asks with little time of its own, which a program in Python cannot."""

import json
import math
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bench._serving import Server

#: Seconds of one round.
SECONDS = 2.0
#: Reads the requests, one a line, and goes round; says at the end what was counted. Where a number is given,
#: goes round so often and stops: then each thread has one connection, and says when each round ended.
_SCRIPT = """
local ffi = require("ffi")
ffi.cdef("typedef struct { long s, ns; } moment; int clock_gettime(int, moment *);")
local requests, at, rounds, moments = {}, 0, 0, {}
local function now()
  local found = ffi.new("moment")
  ffi.C.clock_gettime(1, found)
  return tonumber(found.s) + tonumber(found.ns) / 1e9
end
local threads = 0
function setup(thread)
  -- The first one is asked once more, before it begins.
  thread:set("tried", threads > 0)
  threads = threads + 1
end
function init(args)
  for line in io.lines(args[1]) do
    local path, range, last = line:match("^(%S+) (%S+) (%S+)$")
    local headers = {["User-Agent"] = "phase", ["Accept-Encoding"] = "identity"}
    if range ~= "-" then headers["Range"] = range end
    if last == "last" then headers["Connection"] = "close" end
    requests[#requests + 1] = wrk.format("GET", path, headers)
  end
  rounds = tonumber(args[2])
end
function request()
  if not tried then
    tried = true
    return requests[1]
  end
  if rounds > 0 and at % #requests == 0 then
    moments[#moments + 1] = string.format("%.6f", now())
    if at == rounds * #requests then
      io.stderr:write("[" .. table.concat(moments, ", ") .. "]\\n")
      wrk.thread:stop()
      return ""
    end
  end
  at = at + 1
  return requests[(at - 1) % #requests + 1]
end
function done(summary, latency)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"requests": %d, "bytes": %d, "seconds": %f, "p99": %f, "refused": %d, "broken": %d}\\n',
    summary.requests, summary.bytes, summary.duration / 1e6, latency:percentile(99) / 1e3,
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


class Question(NamedTuple):
    """One request.

    Attributes:
        path: of the file.
        range: of its bytes, as the Range field has it; nothing for all of them.
        last: whether the connection ends with it.
    """

    path: str
    range: str = ""
    last: bool = False


class Load(NamedTuple):
    """What one round brought: so many answers, or machines that have got all of theirs, in so many seconds.

    Attributes:
        cpu: the server's seconds of processor time.
        both: the server's and the reader's. On loopback either of them may do the network's work for both:
            a server that fills the buffer of a socket leaves it to who reads.
        p99: seconds that ninety-nine of a hundred of them took at most.
    """

    answered: int
    bytes: int
    wall: float
    cpu: float
    both: float
    p99: float


def required() -> None:
    """Raises SystemExit where wrk is missing."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed; on Debian: apt-get install wrk")


def load(server: Server, path: str, connections: int, seconds: float = SECONDS) -> Load:
    """Ask a server for one file over and over, for so many seconds."""
    before, reader = server.cpu(), _children()
    with _asking(server, [Question(path)], connections, seconds=seconds) as wrk:
        found = json.loads(wrk.communicate()[1])
    cpu, reader = server.cpu() - before, _children() - reader
    if found["broken"] or found["refused"]:
        raise RuntimeError(f"{server.url} did not answer as it should: {found}")
    return Load(found["requests"], found["bytes"], found["seconds"], cpu, cpu + reader, found["p99"] / 1e3)


def boots(
    server: Server, questions: Sequence[Question], connections: int, each: int, missing: int = 0
) -> Load:
    """Let machines ask for what they boot from, so many at the same time, until all have it.

    Args:
        server: who is asked.
        questions: of one machine, in this order.
        connections: machines at the same time.
        each: machines on each connection, one after the other.
        missing: how many of the questions are for a file that is not there.
    """
    before, reader = server.cpu(), _children()
    with _asking(server, questions, connections, each=each) as wrk:
        assert wrk.stderr is not None
        moments = [json.loads(wrk.stderr.readline()) for _ in range(connections)]
        # It would sleep until its time is up.
        wrk.send_signal(signal.SIGINT)
        found = json.loads(wrk.communicate()[1])
    cpu, reader = server.cpu() - before, _children() - reader
    count = connections * each
    if found["broken"] or found["refused"] != missing * count or found["requests"] != len(questions) * count:
        raise RuntimeError(f"{server.url} did not answer as it should: {found}")
    took = sorted(end - begun for found in moments for begun, end in pairwise(found))
    wall = max(found[-1] for found in moments) - min(found[0] for found in moments)
    return Load(count, found["bytes"], wall, cpu, cpu + reader, took[math.ceil(0.99 * count) - 1])


@contextmanager
def _asking(
    server: Server,
    questions: Sequence[Question],
    connections: int,
    *,
    seconds: float = 600,
    each: int = 0,
) -> "Iterator[subprocess.Popen[str]]":
    with tempfile.TemporaryDirectory() as directory:
        script, asked = Path(directory) / "script.lua", Path(directory) / "questions"
        script.write_text(_SCRIPT)
        lines = (f"{one.path} {one.range or '-'} {'last' if one.last else '-'}\n" for one in questions)
        asked.write_text("".join(lines))
        command = ["wrk", f"-t{connections if each else 1}", f"-c{connections}", f"-d{seconds:.0f}s"]
        command += ["--timeout", "600s", "-s", str(script), server.url, "--", str(asked), str(each)]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def rounds(servers: Sequence[Server], ask: Callable[[Server], Load], count: int) -> list[list[Load]]:
    """Ask servers in turn, so that a busy neighbour costs all the same.

    Returns:
        For each server what each round brought, without the first ones, which fill caches.
    """
    found: list[list[Load]] = [[] for _ in servers]
    for _ in range(count + 1):
        for server, loads in zip(servers, found, strict=True):
            loads.append(ask(server))
    return [loads[1:] for loads in found]


def _children() -> float:
    """Seconds of processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
