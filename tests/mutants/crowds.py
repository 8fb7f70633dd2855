"""What keeps machines that share from each other's faults, and strangers from them."""

from tests.mutants.mutant import Mutant

CROWD = ("tests/phase/fetch/test_crowd.py",)
SHARING = ("tests/phase/fetch/test_sharing.py",)
PEERS = ("tests/phase/provider/test_peers.py",)
SEED = ("tests/phase/boot/test_crowd.py",)

MUTANTS = (
    Mutant(
        "chunks of other machines are not verified",
        "phase/fetch/crowd.py",
        "if sha256_hex(data) != artifact.chunks[index]:",
        "if False:",
        CROWD,
    ),
    Mutant(
        "a machine that lied is asked again",
        "phase/fetch/crowd.py",
        "if peer.host in self._banned:",
        "if False:",
        CROWD,
    ),
    Mutant(
        "a bitmap of any size is taken",
        "phase/fetch/crowd.py",
        "return answer.read(size)",
        "return answer.read(size + 20_000)",
        CROWD,
    ),
    Mutant(
        "a provider can make a seed ask its own machine",
        "phase/fetch/crowd.py",
        "if ip.is_loopback and not _is_loopback(provider):",
        "if False:",
        CROWD,
    ),
    Mutant(
        "a provider can make a seed ask services",
        "phase/fetch/crowd.py",
        "LOWEST_PORT <= int(port) < 65_536",
        "0 < int(port) < 65_536",
        CROWD,
    ),
    Mutant(
        "machines beyond a router are asked",
        "phase/fetch/way.py",
        "    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)\n",
        "",
        SHARING,
    ),
    Mutant(
        "packets of those who share pass routers",
        "phase/fetch/way.py",
        "    endpoint.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)\n",
        "",
        SHARING,
    ),
    Mutant(
        "slow machines hold a boot up",
        "phase/fetch/others.py",
        "self._slow = not self.provider_rate or self._bytes <= self.provider_rate * span",
        "self._slow = False",
        CROWD,
    ),
    Mutant(
        "a provider can make a machine wait for its turn for ever",
        "phase/fetch/others.py",
        "if self.machines <= ASKING or now - self._came > HUNGRY_SECONDS:",
        "if self.machines <= ASKING:",
        CROWD,
    ),
    Mutant(
        "what is not verified is given to others",
        "phase/fetch/sharing.py",
        "return all(map(transfer.has, chunks))",
        "return True",
        SHARING,
    ),
    Mutant(
        "a machine that shares takes any number of connections",
        "phase/fetch/sharing.py",
        "full = len(self._open) >= MAX_CONNECTIONS or",
        "full = False and",
        SHARING,
    ),
    Mutant(
        "one host takes all places of a machine that shares",
        "phase/fetch/sharing.py",
        " or Counter(self._open.values())[host] >= MAX_PER_HOST",
        "",
        SHARING,
    ),
    Mutant(
        "a request to a machine that shares may take for ever",
        "phase/fetch/sharing.py",
        "left = end - monotonic()",
        "left = HEAD_SECONDS",
        SHARING,
    ),
    Mutant(
        "a provider names machines of other networks",
        "phase/provider/peers.py",
        "each.link == link and not _same(each, asks)",
        "not _same(each, asks)",
        PEERS,
    ),
    Mutant(
        "a provider names ports of services",
        "phase/provider/peers.py",
        "if LOWEST_PORT <= number <= HIGHEST_PORT:",
        "if number:",
        PEERS,
    ),
    Mutant(
        "a provider remembers any number of machines",
        "phase/provider/peers.py",
        "[*known[-(MAX_PEERS - 1) :], new]",
        "[*known, new]",
        PEERS,
    ),
    Mutant(
        "one address fills the table of machines",
        "phase/provider/peers.py",
        "if len(of_host) >= MAX_PER_HOST:",
        "if False:",
        PEERS,
    ),
    Mutant(
        "a seed shares in private mode",
        "phase/boot/seed.py",
        "near = self.mode.serves and self.way.proxy is None",
        "near = True",
        SEED,
    ),
    Mutant(
        "a seed shares on while the next kernel starts",
        "phase/boot/seed.py",
        "        self.assembly.stop_sharing()\n",
        "",
        SEED,
    ),
)
