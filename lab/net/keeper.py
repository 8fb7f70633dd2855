"""Keeps a network namespace for `lab.net.hostport`: makes its card, hands it over, waits for the end.

Run inside of the new namespace as `keeper.py SOCKET MAC ADDRESS/LENGTH GATEWAY`. Standard library only, and
nothing of this project: it is started with `python -I`.
"""

import array
import fcntl
import os
import socket
import struct
import subprocess
import sys

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


def main() -> None:
    """Make the card, hand it over, stay until the other end is closed."""
    number, mac, address, gateway = sys.argv[1:]
    control = socket.socket(fileno=int(number))
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", b"eth0", _IFF_TAP | _IFF_NO_PI))
    lines = [
        "link set lo up",
        f"link set eth0 address {mac} up",
        f"address add {address} broadcast + dev eth0",
        f"route add default via {gateway}" if gateway else "route add 224.0.0.0/4 dev eth0",
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    control.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [tap]))])
    os.close(tap)
    control.recv(1)


if __name__ == "__main__":
    try:
        main()
    except (OSError, subprocess.CalledProcessError) as failure:
        sys.exit(str(failure))
