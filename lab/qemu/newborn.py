"""What makes a clone a machine of its own: chance, time, a name, addresses. Pure, but for its dice.

The kernel of a frozen machine holds a random generator that would give the same numbers in every clone
until it takes new entropy, up to a minute later. Writing to `/dev/urandom` alone does not make it: an
ioctl does (random(4), RNDRESEEDCRNG), for which no shell has a word, so the lab brings a program.
"""

import base64
import secrets
import struct
from collections.abc import Sequence
from ipaddress import IPv4Interface
from typing import NamedTuple

# ioctl(0, RNDRESEEDCRNG, 0), and its result to exit.
_CODE = {
    "x86_64": bytes.fromhex("b810000000 31ff be07520000 31d2 0f05 89c7 b83c000000 0f05"),
    "arm64": struct.pack(
        "<7I", 0xD2800000, 0xD28A40E1, 0xD2800002, 0xD28003A8, 0xD4000001, 0xD2800BA8, 0xD4000001
    ),
}
_ELF_MACHINE = {"x86_64": 62, "arm64": 183}
_BASE = 0x400000
#: Where that program is put: the first of these that can be written and run from.
_PLACES = "/run /tmp /dev"


class Plug(NamedTuple):
    """A network card that changes hands: the hardware address and the address it had and is to have."""

    had_mac: str
    mac: str
    had: IPv4Interface
    has: IPv4Interface


def program(arch: str) -> bytes:
    """The program that reseeds: standard input is `/dev/urandom`, exit code 0 is success.

    Args:
        arch: `x86_64` or `arm64`.

    Returns:
        An ELF executable (System V ABI) of one segment that needs no library.
    """
    code = _CODE[arch]
    size = 64 + 56 + len(code)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    entry = _BASE + 64 + 56
    header = struct.pack("<HHIQQQIHHHHHH", 2, _ELF_MACHINE[arch], 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return ident + header + segment + code


def wait(arch: str) -> str:
    """A command for the shell of a machine that is to be frozen: it waits for the line `wake` makes.

    All that can be done before is done then, and as little as possible after: what a clone does first
    is what everybody waits for.
    """
    encoded = base64.b64encode(program(arch)).decode()
    return _WAIT.replace("@PLACES@", _PLACES).replace("@PROGRAM@", encoded)


def wake(name: str, now: float, plugs: Sequence[Plug]) -> str:
    """The line for a clone.

    Args:
        name: its host name from now on.
        now: seconds since 1970.
        plugs: its network cards.
    """
    words = [word for plug in plugs if plug.had_mac != plug.mac or plug.had != plug.has for word in plug]
    return " ".join(["@become", name, f"{now:.0f}", secrets.token_hex(32), *map(str, words)])


# IPv6 addresses made from the old hardware address go, and come again from the new one. A sysctl read byte
# by byte, as a shell reads, ends before its newline. The address changes only where there was one: a
# machine that has not asked yet gets the new one when it asks. The last word is the shell's own (`resume`).
_WAIT = r"""for r in @PLACES@; do r=$r/.lab-reseed
( echo @PROGRAM@|base64 -d >$r&&chmod 700 $r&&$r </dev/urandom ) 2>&1&&break; r=; done
[ -n "$r" ]||exit 1
say waits $n
while read -r w name now seed plugs; do [ "$w" = @become ]&&break; done </proc/$$/fd/0
set -e
echo $seed >/dev/urandom
$r </dev/urandom
date -s @$now >/dev/null
echo $name >/proc/sys/kernel/hostname
set -- $plugs
while [ $# -gt 4 ]; do
found=
for d in /sys/class/net/*; do read -r a <$d/address; [ $a != $1 ]||found=${d##*/}; done
[ -n "$found" ]||{ echo no card has the address $1; exit 1; }
if [ $1 != $2 ]; then
off=/proc/sys/net/ipv6/conf/$found/disable_ipv6 w=1
[ ! -e $off ]||read -r w <$off||:
[ $w = 1 ]||echo 1 >$off
ip link set dev $found address $2
[ $w = 1 ]||echo 0 >$off
fi
[ $3 = $4 ]||! ip address del $3 dev $found 2>/dev/null||ip address add $4 dev $found
shift 4
done
echo "${t}lab-$sid end $n 0 0 - $1" >$L
"""
