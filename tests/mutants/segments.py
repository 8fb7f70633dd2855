"""What bounds `phase netboot`: whom it answers, how often, and with what."""

from tests.mutants.mutant import Mutant

DHCP = ("tests/phase/netboot/test_dhcp.py",)
TFTP = ("tests/phase/netboot/test_tftp.py",)
NETWORKS = ("tests/phase/netboot/test_networks.py",)

MUTANTS = (
    Mutant(
        "messages of any length are read",
        "phase/netboot/dhcp.py",
        "if not _HEAD.size <= len(data) <= MAX_MESSAGE:",
        "if not _HEAD.size <= len(data):",
        DHCP,
    ),
    Mutant(
        "relays are answered", "phase/netboot/dhcp.py", "if not ours or any(relay):", "if not ours:", DHCP
    ),
    Mutant(
        "options that are cut short are read",
        "phase/netboot/dhcp.py",
        "        if end > len(data):\n            return None",
        "        if end > len(data):\n            return found",
        DHCP,
    ),
    Mutant(
        "a class that begins alike is firmware's",
        "phase/netboot/dhcp.py",
        'word = name.partition(b":")[0]',
        "word = name[:9] if name[:1] == b'P' else name[:10]",
        DHCP,
    ),
    Mutant(
        "a machine that asks without end is answered",
        "phase/netboot/proxy.py",
        "not (self._machines.allow(question.mac) and self._segment.allow(",
        "not (self._segment.allow(",
        (f"{NETWORKS[0]}::test_a_machine_that_asks_without_end_is_not_answered_without_end",),
    ),
    Mutant(
        "a DHCP server of the same machine loses its clients",
        "phase/netboot/sockets.py",
        "return _open(card, _EVERYBODY, SERVER)",
        'return _open(card, "", SERVER)',
        (f"{NETWORKS[0]}::test_what_is_sent_to_another_server_alone_reaches_it",),
    ),
    Mutant(
        "every segment is answered",
        "phase/netboot/sockets.py",
        'socket.SO_BINDTODEVICE, card.name.encode() + b"\\0")',
        'socket.SO_BINDTODEVICE, b"")',
        (f"{NETWORKS[0]}::test_only_the_segment_that_is_named_is_answered",),
    ),
    Mutant(
        "who takes an address is answered",
        "phase/netboot/proxy.py",
        "if question is not None and question.kind is Kind.DISCOVER:",
        "if question is not None:",
        (f"{NETWORKS[0]}::test_each_firmware_is_told_its_file_and_no_address",),
    ),
    Mutant(
        "what no root vouches for is handed out",
        "phase/netboot/menu.py",
        "if proven is None:",
        "if True:",
        ("tests/phase/netboot/test_proven.py",),
    ),
    Mutant(
        "anything is a seed",
        "phase/netboot/menu.py",
        "if not image.startswith(_PROGRAM):",
        "if False:",
        ("tests/phase/netboot/test_menu.py",),
    ),
    Mutant(
        "readers from elsewhere are sent files",
        "phase/netboot/files.py",
        "not self._card.has(IPv4Address(came[0])) or came in self._readers",
        "came in self._readers",
        (f"{NETWORKS[0]}::test_a_reader_from_elsewhere_is_not_answered",),
    ),
    Mutant(
        "one address takes all transfers",
        "phase/netboot/files.py",
        " or of_one >= MAX_OF_ONE",
        "",
        (f"{NETWORKS[0]}::test_readers_that_never_answer_are_left",),
    ),
    Mutant(
        "refusals are sent without end",
        "phase/netboot/files.py",
        "if request is None or not self._requests.allow(came[0]):",
        "if request is None:",
        (f"{NETWORKS[0]}::test_readers_that_never_answer_are_left",),
    ),
    Mutant(
        "a reader that does not answer is told for ever",
        "phase/netboot/files.py",
        "silent += 1",
        "silent += 0",
        (f"{NETWORKS[0]}::test_readers_that_never_answer_are_left",),
    ),
    Mutant("a write is a read", "phase/netboot/tftp.py", "if code == Code.WRITE:", "if False:", TFTP),
    Mutant(
        "windows are as large as they are asked for",
        "phase/netboot/tftp.py",
        "min(window, MAX_WINDOW)",
        "window",
        TFTP,
    ),
    Mutant(
        "blocks are as long as they are asked for",
        "phase/netboot/tftp.py",
        "min(block, MAX_BLOCK)",
        "block",
        TFTP,
    ),
    Mutant(
        "an answer that comes twice makes all come twice",
        "phase/netboot/tftp.py",
        "if self._agreed.window == 1 or self._again:",
        "if self._again:",
        TFTP,
    ),
    Mutant(
        "a flood of answers makes a flood of windows",
        "phase/netboot/tftp.py",
        "if self._agreed.window == 1 or self._again:",
        "if self._agreed.window == 1:",
        TFTP,
    ),
    Mutant(
        "blocks that were not sent have arrived",
        "phase/netboot/tftp.py",
        "if ahead > self._sent() - self._base:",
        "if False:",
        TFTP,
    ),
    Mutant(
        "senders are remembered for ever",
        "phase/netboot/rates.py",
        "if len(self._full) > MAX_SENDERS:",
        "if False:",
        ("tests/phase/netboot/test_rates.py",),
    ),
    Mutant(
        "all segments are answered unasked",
        "phase/netboot/cards.py",
        "if len({each.number for each in cards}) > 1:",
        "if False:",
        ("tests/phase/netboot/test_cards.py",),
    ),
)
