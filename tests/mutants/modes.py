"""What a mode promises to the person who chose it."""

from tests.mutants.mutant import Mutant

SEED = ("tests/phase/boot/test_modes.py",)
CARDS = ("tests/boot/test_network_modes.py",)
CHOICE = ("tests/phase/test_modes.py",)
SERVICES = ("tests/boot/test_daemon.py", "tests/boot/test_node.py")

MUTANTS = (
    # Whoever signs
    Mutant(
        "a signed line loosens a mode",
        "phase/cmdline.py",
        "mode = modes.stricter(parse(signed).mode, parse(running).mode)",
        "mode = parse(signed).mode",
        CHOICE,
    ),
    # Local
    Mutant(
        "a router is used in local mode",
        "boot/files/udhcpc",
        "    internet) routes ;;\n",
        "    internet | local) routes ;;\n",
        CARDS,
    ),
    Mutant(
        "a name server is used in local mode",
        "boot/files/network",
        '    [ "$mode" = internet ] || return 0\n',
        "",
        CARDS,
    ),
    Mutant(
        "an IPv6 prefix makes half the world a neighbour in local mode",
        "boot/files/network",
        '[ "$mode" = internet ] || no_wide_neighbours\n',
        "",
        CARDS,
    ),
    Mutant(
        "a card without a word of the mode does what the internet mode allows",
        "boot/files/network",
        "*) mode=private ;; esac",
        "*) mode=internet ;; esac",
        CARDS,
    ),
    Mutant(
        "a lease without a word of the mode gives a way out",
        "boot/files/udhcpc",
        "*) mode=private ;; esac",
        "*) mode=internet ;; esac",
        CARDS,
    ),
    Mutant(
        "a seed without a word of the mode asks routers for name servers",
        "phase/boot/network.py",
        'modes.of(_text(f"{self._run}/mode"))',
        'modes.of(_text(f"{self._run}/mode") or "internet")',
        ("tests/phase/boot/test_network.py",),
    ),
    Mutant(
        "an IPv6 router is used in local mode",
        "boot/files/network",
        '    [ "$mode" = internet ] || stay\n',
        "",
        CARDS,
    ),
    Mutant(
        "everybody on the cable is a router in local mode",
        "boot/files/network",
        '    if [ "$mode" = internet ]; then\n',
        "    if true; then\n",
        CARDS,
    ),
    Mutant(
        "names are asked for in local mode",
        "phase/fetch/http.py",
        "        if not names:\n",
        "        if False:\n",
        SEED,
    ),
    Mutant(
        "the DHT is asked in every mode",
        "phase/boot/seed.py",
        "(self.parameters.dht or ()) if self.mode.dht else ()",
        "self.parameters.dht or ()",
        ("tests/phase/boot/test_main.py",),
    ),
    Mutant(
        "a system in local mode takes part in the DHT",
        "phase/cli/serve.py",
        "no_dht=options.no_dht or not mode.dht",
        "no_dht=options.no_dht",
        ("tests/phase/cli/test_modes.py",),
    ),
    Mutant(
        "a node in local mode takes part in the DHT",
        "phase/cli/node.py",
        'given["dht"] if mode.dht and not given["no_dht"] else ()',
        'given["dht"] if not given["no_dht"] else ()',
        ("tests/phase/cli/test_modes.py",),
    ),
    # Private
    Mutant(
        "everybody has Tor's way out",
        "phase/boot/tor.py",
        '        (_UID_RANGE, struct.pack("=II", USER, USER)),\n',
        "",
        CARDS,
    ),
    Mutant(
        "everybody has a way out in private mode",
        "boot/files/udhcpc",
        "    private) routes | $b sed 's/$/ table 107/' ;;\n",
        "    private) routes ;;\n",
        CARDS,
    ),
    Mutant(
        "private mode goes without Tor",
        "phase/fetch/http.py",
        "        if way.refusal:\n",
        "        if False:\n",
        ("tests/phase/fetch/test_way.py",),
    ),
    Mutant(
        "private mode waits for a Tor that nobody has named",
        "phase/boot/seed.py",
        "        if self.way.refusal:\n",
        "        if False:\n",
        SEED,
    ),
    Mutant(
        "private mode asks the local network",
        "phase/boot/seed.py",
        "self.parameters.mdns and self.mode.mdns",
        "self.parameters.mdns",
        SEED,
    ),
    Mutant(
        "private mode shows the card's own address",
        "boot/files/network",
        'if [ "$mode" = private ] && [ -z "$made" ] && ! hide; then',
        "if false; then",
        CARDS,
    ),
    Mutant(
        "private mode takes a card that cannot hide",
        "boot/files/network",
        'if [ "$mode" = private ] && [ -z "$made" ] && ! hide; then',
        '[ "$mode" != private ] || hide; if false; then',
        CARDS,
    ),
    Mutant(
        "private mode serves",
        "boot/files/daemon",
        '[ "$mode" != private ] || exec sleep 86400\n',
        "",
        SERVICES,
    ),
    Mutant(
        "private mode takes jobs",
        "boot/files/node",
        '[ -n "$allow" ] && [ "$mode" != private ] ||',
        '[ -n "$allow" ] ||',
        SERVICES,
    ),
    Mutant(
        "a scan finds a machine in private mode",
        "boot/files/network",
        "    echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all\n",
        "",
        CARDS,
    ),
    Mutant(
        "an identity of private mode is written down",
        "phase/node/__init__.py",
        "ephemeral=not modes.of(sys.argv[2]).lasting",
        "ephemeral=False",
        ("tests/phase/node/test_modes.py",),
    ),
)
