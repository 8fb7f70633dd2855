"""What machines on a segment say to `phase netboot`."""

from ipaddress import IPv4Address

from phase.netboot import dhcp, tftp
from phase.netboot.tftp import RequestError, Sending
from tests.firmware import HTTP, PXE, asked, message, option
from tests.fuzz.publishing import short

SERVER = IPv4Address("192.0.2.1")
_LENGTH = 5000
READ = b"\0\1x86_64/boot.efi\0octet\0blksize\x001468\0windowsize\x004\0tsize\x000\0"


def questions() -> tuple[bytes, ...]:
    """What firmware asks."""
    return (
        message(asked()),
        message(asked(3, 11), own=b"\xc0\0\2\x09"),
        message(asked(1, 19, HTTP)),
        message(asked(1, 0, PXE, option(77, b"iPXE"))),
    )


def netboot_dhcp(data: bytes) -> None:
    """A datagram at the ports of DHCP: the answer is short, gives no address, and names its question."""
    question = dhcp.parse(data)
    if question is None:
        return
    answer = dhcp.answer(question, "x86_64/boot.efi", SERVER)
    assert len(answer) <= len(data) + 300
    assert answer[4:8] == data[4:8]
    assert answer[16:20] == bytes(4)
    assert dhcp.parse(answer) is None, "an answer is no question"


def netboot_tftp(data: bytes) -> None:
    """A request, and then, cut in pieces of four bytes, what its sender says to each window."""
    try:
        request = tftp.parse(data)
    except RequestError as refused:
        short(refused)
        return
    if request is None:
        return
    agreed = tftp.agree(request, _LENGTH)
    sending = Sending(bytes(_LENGTH), agreed)
    for start in range(0, len(data), 4):
        sending.take(data[start : start + 4])
        due = sending.due()
        assert len(due) <= agreed.window <= tftp.MAX_WINDOW
        assert all(len(packet) <= tftp.MAX_BLOCK + 4 for packet in due)
