"""What a booting machine reads: its command line, its disks, and what its network tells."""

from phase import cmdline
from phase.boot import advertisement
from phase.boot import cache as boot_cache
from phase.discovery.records import from_txt
from phase.fetch import http


def disk_label(data: bytes) -> None:
    """The first bytes of any disk that a machine happens to have."""
    if boot_cache.is_ours(data):
        assert data[1024 + 0x78 :].startswith(b"phase-cache")


def txt(data: bytes) -> None:
    """An mDNS answer's TXT record, address and port."""
    fields = data.split(b"\0")
    pairs: dict[bytes, bytes | None] = {
        b"txtvers": b"1",
        b"channel": b"stable",
        b"arch": b"x86_64",
        b"id": b"x",
    }
    address = fields[0].decode("latin-1")
    for field in fields[2:]:
        key, equals, value = field.partition(b"=")
        pairs[key] = value if equals else None
    port = int.from_bytes(fields[1][:4], "big") if len(fields) > 1 else None
    found = from_txt(pairs, address, port, channel="stable", arch="x86_64")
    if found is not None:
        http.parse_url(found.url)
        assert found.id.isascii()
        assert found.id.isprintable()


def router(data: bytes) -> None:
    """A router advertisement: what becomes of it are a few lines of resolv.conf."""
    lines = advertisement.parse(data).lines("eth0")
    assert len(lines) <= 9
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert all(len(line.split(" ")) == 2 for line in lines)


def kernel_line(data: bytes) -> None:
    """The kernel command line, and the one made for the next kernel."""
    text = data.decode("utf-8", "surrogateescape")
    text += '"' * (text.count('"') % 2)  # a quote left open would hold all that follows
    found = cmdline.parse(text)
    assert 0 < found.timeout <= 86_400
    made = cmdline.compose("quiet phase.channel=stable", text, rootfs="0" * 64)
    assert cmdline.parse(made).rootfs == "0" * 64
    assert cmdline.parse(made).channel == "stable"
    words = {word.partition("=")[0] for word in cmdline.split(made)}
    assert words <= {"quiet", "phase.rootfs", *cmdline.CARRIED}
