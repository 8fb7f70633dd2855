"""What firmware says when it boots from the network, as bytes; and as a program, on a card of its own.

python -m tests.firmware discover CARD SECONDS NUMBER CLASS [WORD]   prints each answer, as JSON
python -m tests.firmware again SERVER NUMBER                         the same, of port 4011
python -m tests.firmware read SERVER NAME BLOCK WINDOW LOST          reads by TFTP; loses each LOSTth block
python -m tests.firmware storm CARD COUNT                            asks without end
python -m tests.firmware flood SERVER NAME COUNT                     the same by TFTP
"""

import contextlib
import hashlib
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator

MAC = bytes.fromhex("525400123456")
MAGIC = b"\x63\x82\x53\x63"
MACHINE = b"\0" + bytes(range(16))
PXE, HTTP = b"PXEClient", b"HTTPClient"


def message(options: bytes, *, mac: bytes = MAC, relay: bytes = bytes(4), own: bytes = bytes(4)) -> bytes:
    """A message of a client, with its options as they are."""
    head = struct.pack(
        "!BBBBIHH4s4s4s4s16s64s128s",
        1,
        1,
        6,
        0,
        0xC0FFEE,
        4,
        0x8000,
        own,
        bytes(4),
        bytes(4),
        relay,
        mac,
        b"",
        b"",
    )
    return head + MAGIC + options


def option(code: int, value: bytes) -> bytes:
    """One option."""
    return bytes((code, len(value))) + value


def asked(kind: int = 1, number: int = 7, name: bytes = PXE, more: bytes = b"") -> bytes:
    """The options of firmware: message type, class, architecture, network interface, machine."""
    return (
        option(53, bytes((kind,)))
        + option(60, name + b":Arch:%05d:UNDI:003001" % number)
        + option(93, struct.pack("!H", number))
        + option(94, b"\1\3\1")
        + option(97, MACHINE)
        + more
        + b"\xff"
    )


def told(data: bytes) -> dict[str, object]:
    """An answer, read by the letter of RFC 2131, without anything of the product."""
    options: dict[int, bytes] = {}
    rest = data[240:]
    while rest and rest[0] != 255:
        options[rest[0]] = rest[2 : 2 + rest[1]]
        rest = rest[2 + rest[1] :]
    return {
        "operation": data[0],
        "transaction": int.from_bytes(data[4:8], "big"),
        "given": socket.inet_ntoa(data[16:20]),
        "next": socket.inet_ntoa(data[20:24]),
        "mac": data[28:34].hex(),
        "file": data[108:236].split(b"\0")[0].decode() or options.get(67, b"").decode(),
        "kind": options[53][0],
        "server": socket.inet_ntoa(options[54]),
        "class": options.get(60, b"").decode(),
        "vendor": options.get(43, b"").hex(),
        "machine": options.get(97, b"").hex(),
        "options": sorted(options),
        "length": len(data),
    }


def _discover(card: str, seconds: str, number: str, name: str, *words: str) -> None:
    asking = _everybody(card)
    more = option(77, b"iPXE") if "ipxe" in words else b""
    kind = 3 if "request" in words else 1
    asking.sendto(message(asked(kind, int(number), name.encode(), more)), ("255.255.255.255", 67))
    for data, came in _heard(asking, float(seconds)):
        print(json.dumps({**told(data), "from": list(came)}), flush=True)


def _again(server: str, number: str) -> None:
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.bind(("", 68))
    asking.settimeout(10)
    asking.connect((server, 4011))
    own = socket.inet_aton(asking.getsockname()[0])
    asking.send(message(asked(3, int(number)), own=own))
    print(json.dumps(told(asking.recv(2000))))


def _read(server: str, name: str, block: str, window: str, lost: str) -> None:
    reading = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    reading.settimeout(10)
    wanted = {"blksize": block, "windowsize": window, "tsize": "0", "timeout": "1"}
    pairs = b"".join(f"{key}\0{value}\0".encode() for key, value in wanted.items())
    reading.sendto(b"\0\1" + name.encode() + b"\0octet\0" + pairs, (server, 69))
    answer, came = reading.recvfrom(2000)
    words = answer[2:].split(b"\0")
    agreed = {key.decode(): int(value) for key, value in zip(words[::2], words[1::2], strict=False) if key}
    reading.connect(came)
    reading.send(b"\0\4\0\0")
    content, number, seen = hashlib.sha256(), 0, 0
    while True:
        for _ in range(agreed["windowsize"]):
            data = reading.recv(2000)
            seen += 1
            if int(lost) and seen % int(lost) == 0:
                continue
            if int.from_bytes(data[2:4], "big") != (number + 1) & 0xFFFF:
                break
            number += 1
            content.update(data[4:])
            if len(data) - 4 < agreed["blksize"]:
                reading.send(struct.pack("!HH", 4, number & 0xFFFF))
                print(json.dumps({**agreed, "sha256": content.hexdigest(), "blocks": number}))
                return
        reading.send(struct.pack("!HH", 4, number & 0xFFFF))


def _storm(card: str, count: str) -> None:
    """So many questions of one machine and then one of another; how many answers each gets."""
    asking = _everybody(card)
    other = b"\x52\x54\0\0\0\x99"
    for mac in (*[MAC] * int(count), other):
        asking.sendto(message(asked(), mac=mac), ("255.255.255.255", 67))
    answered = {MAC.hex(): 0, other.hex(): 0}
    for data, _ in _heard(asking, 3.0):
        answered[data[28:34].hex()] += 1
    print(json.dumps([answered[MAC.hex()], answered[other.hex()]]))


def _flood(server: str, name: str, count: str) -> None:
    """So many requests for a file, none of which is gone on with; what comes for each within 12 s."""
    readers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(int(count))]
    for each in readers:
        each.setblocking(False)
        each.sendto(b"\0\1" + name.encode() + b"\0octet\0", (server, 69))
        # Twice, as firmware does that has not heard the answer yet.
        each.sendto(b"\0\1" + name.encode() + b"\0octet\0", (server, 69))
    time.sleep(12)
    for each in readers:
        came = []
        with contextlib.suppress(BlockingIOError):
            while True:
                came.append(each.recv(2000)[:4].hex())
        print(json.dumps(came))


def _everybody(card: str) -> socket.socket:
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, card.encode())
    asking.bind(("", 68))
    return asking


def _heard(asking: socket.socket, seconds: float) -> Iterator[tuple[bytes, tuple[str, int]]]:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        asking.settimeout(left)
        try:
            yield asking.recvfrom(2000)
        except TimeoutError:
            return


if __name__ == "__main__":
    words = sys.argv[2:]
    if sys.argv[1] == "discover":
        _discover(*words)
    elif sys.argv[1] == "again":
        _again(*words)
    elif sys.argv[1] == "read":
        _read(*words)
    elif sys.argv[1] == "storm":
        _storm(*words)
    else:
        _flood(*words)
