"""The seed's stages, in order: discover, trust, fetch, verify, load, handoff.

Each stage prints one mark when it ends. A failed one says what, why and what to try, and then the policy
follows (`phase.boot.policy`). Nothing unverified is ever loaded.
"""

import time
from collections.abc import Collection

from phase import cmdline, discovery, fetch, marks, measured, modes, trust
from phase.boot import fallback
from phase.boot.assembly import Assembly
from phase.boot.cache import Cache
from phase.boot.errors import BootError, CacheError, HandoffError, LockedDownError, NetworkError
from phase.boot.machine import Machine, Search
from phase.boot.memory import TooLittleMemoryError
from phase.boot.policy import GATHER, RESTART, RESTART_LASTING, Standing, decide
from phase.boot.reasons import Reasons
from phase.boot.remembered import Remembered, if_it_can
from phase.boot.waiting import Waiting
from phase.discovery import MAX_PROVIDERS, Provider
from phase.errors import PhaseError
from phase.fetch.here import Here
from phase.fetch.release import refresh_from
from phase.fetch.way import DIRECT, Way
from phase.release.described import releases
from phase.release.manifest import Manifest, role_name

#: Seconds to wait for an address before a kept release is booted instead.
PATIENCE = 30.0
#: Percent of a way that is found.
_WHOLE = 100
#: Providers that proved nothing which are remembered.
_MOST_USELESS = 256


class Seed:
    """One boot: what it was asked, and which stage it is in.

    Args:
        machine: the one that boots.

    Raises:
        PhaseError: this image cannot boot anything, from any provider.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.stage = "init"
        self.running = machine.command_line()
        self.parameters = cmdline.parse(self.running)
        #: What the person at this machine allows it.
        self.mode = modes.of(self.parameters.mode)
        #: The proxy of this image's own Tor, where that is the way to take.
        self.own_tor = None if self.mode.direct or self.parameters.tor else machine.own_tor()
        self.way = _way(self.mode, self.parameters.tor or self.own_tor)
        #: What follows a boot that failed, and after how many seconds.
        self.give_way(RESTART)
        self.arch = machine.arch
        self.root = _required(machine, "root.json", hint="This seed was built without a trust root.")
        self.end = machine.monotonic() + self.parameters.timeout
        self.waiting = Waiting(self.left)
        self.connected = False
        #: Whether the providers that were named have failed, so that others are looked for, too.
        self.others_too = not self.parameters.providers
        #: How often providers were looked for, and which of them proved nothing.
        self.searches = 0
        self.useless: set[str] = set()
        #: Hosts whose answers to a search do not count.
        self.besides: Collection[str] = ()
        self.reasons = Reasons(self.parameters.providers)
        #: Whether the last attempt was for the release before the newest.
        self.fell_back = False
        #: What was told of the last failure.
        self.told = ""
        #: Providers that have sent wrong bytes: not asked for any more of them.
        self.liars: set[str] = set()
        #: What is measured before the handoff.
        self.events: tuple[bytes, ...] = ()
        # Nobody may find who is there in private mode, and through Tor no machine is near.
        near = self.mode.serves and self.way.proxy is None
        share = self.parameters.share and near
        self.assembly = Assembly(machine, self.liars, self.way, share=share)
        self.remembered = Remembered(machine, self.root)
        _check_root(self.root, self.remembered)
        #: Whether this image lets a kept release boot when no provider gives one.
        self.offline = machine.config("allow-offline") is not None
        #: How long after its expiry this image takes metadata, in the mode of the command line.
        self.policy = trust.Policy(grace=_grace(machine, self.parameters.mode))

    @property
    def cache(self) -> Cache | None:
        """What earlier boots have kept."""
        return self.remembered.cache

    @property
    def may_write(self) -> bool:
        """Whether anything of this boot may be kept."""
        return not self.parameters.nowrite

    def run(self) -> None:
        """Try until the handoff, or until the time is up."""
        parameters = self.parameters
        marks.emit("init", arch=self.arch, channel=parameters.channel, mode=parameters.mode)
        marks.say(f"looking for {parameters.channel}/{self.arch} for up to {parameters.timeout:.0f} s")
        for line in (*cmdline.remarks(self.running), *_overruled(self.mode, self.parameters)):
            marks.say(line)
        if self.way.refusal:
            # Nothing that comes later changes it.
            self.give_way(RESTART_LASTING)
            raise BootError(self.way.refusal, hint=self.way.hint)
        with self.waiting:
            self.open_cache()
            attempts = 0
            while True:
                attempts += 1
                try:
                    self.network()
                    self.open_way()
                    self.attempt()
                except LockedDownError:
                    # The same release would be refused again.
                    self.give_way(RESTART_LASTING)
                    raise
                except HandoffError:
                    raise
                except PhaseError as error:
                    self.follow(error, attempts)
                except OSError as error:
                    # The machine's own: a full /run, a disk that fails, a card that is gone.
                    self.follow(BootError(f"this machine failed: {error}"), attempts)

    def follow(self, error: PhaseError, attempts: int) -> None:
        """Do what the policy says after a failed attempt; raises the error when it is to give up."""
        failed_at = self.stage
        kept = self.bootable()
        lasting = isinstance(error, TooLittleMemoryError)
        decision = decide(
            Standing(attempts, self.left(), self.connected, self.searches, kept is not None, lasting)
        )
        if decision.boot_kept and kept is not None:
            marks.emit(failed_at, "retry", reason=str(error), next="cache")
            self.boot_kept(kept)
            self.stage = failed_at
        refused = isinstance(error, trust.TrustError | fetch.VerificationError)
        marks.emit(self.stage, "refused" if refused else "failed", reason=str(error), attempt=attempts)
        if decision.pause is None:
            if lasting:
                self.give_way(RESTART_LASTING)
            raise error
        again = f"trying again in {decision.pause:.0f} s, for {self.left():.0f} s more"
        # What is the same as before, or has been told of each provider, is not told again.
        line = "" if self.stage == "trust" or str(error) == self.told else f"{self.stage}: {error}; "
        self.told = str(error)
        marks.say(f"{line}{again}")
        self.waiting.what = "the next attempt"
        self.machine.sleep(decision.pause)

    def give_way(self, seconds: int) -> None:
        """Say what follows a boot that failed, and after how many seconds."""
        self.rescue = (self.parameters.rescue, seconds)
        self.machine.set_rescue(*self.rescue)

    def left(self) -> float:
        """Seconds until the time is up."""
        return self.end - self.machine.monotonic()

    def bootable(self) -> Cache | None:
        """The cache, if it holds a release that may boot without a provider."""
        return self.cache if self.cache is not None and self.offline and self.cache.metadata() else None

    def open_cache(self) -> None:
        """Look for what earlier boots have kept, if this one may know of it."""
        if not self.mode.disks:
            return
        self.remembered.look_at_firmware()
        if not self.parameters.cache:
            return
        try:
            found = self.machine.open_cache(self.remembered.publisher, writable=self.may_write)
        except CacheError as error:
            marks.say(str(error))
            return
        if found is not None:
            device, cache = found
            self.remembered.look_at(cache)
            marks.say(f"cache: {device}{'' if cache.writable else ', only read'}")

    def network(self) -> None:
        """Wait until a network card has an address."""
        if self.connected:
            # The attempt before has failed, for a name that one card's servers do not know, perhaps.
            self.machine.turn_name_servers()
            return
        self.stage = "network"
        patience = self.left()
        if self.cache is not None and self.offline:
            patience = min(patience, PATIENCE)
        until = self.machine.monotonic() + patience
        while (found := self.machine.address()) is None:
            waits = self.machine.network_waits()
            self.waiting.what = f"an address ({waits or 'no network card yet'})"
            if self.machine.monotonic() > until:
                raise NetworkError(
                    f"no network card has an address: {waits or 'there is none'}",
                    hint="Check the cable, and the network's DHCP server or router.",
                )
            self.machine.sleep(0.02)
        marks.emit("network", interface=found.interface, address=found.address)
        self.connected = True

    def open_way(self) -> None:
        """Wait until this image's own Tor has found its way, where nothing is fetched but by it."""
        while self.own_tor is not None and (done := self.machine.tor_progress()) < _WHOLE:
            self.waiting.what = f"Tor to find its way ({done} %)"
            if self.left() <= 0:
                raise NetworkError(
                    f"Tor has found no way within the time: it is at {done} %",
                    hint="Check this machine's clock, and whether the network lets Tor out.",
                )
            self.machine.sleep(0.2)

    def attempt(self) -> None:
        """One way from discovery to the second kernel."""
        if not self.others_too:
            try:
                self.boot_from(self.discover())
            except (HandoffError, TooLittleMemoryError):
                raise
            except PhaseError as error:
                self.others_too = True
                if not self.searchable():
                    raise
                marks.emit(self.stage, "retry", reason=str(error), next="discover")
                if self.stage != "trust":
                    marks.say(f"{self.stage}: {error}")
                marks.say("no provider that was named helps; looking for others")
        self.boot_from(self.discover())

    def boot_from(self, urls: list[str]) -> None:
        """Take the release of these providers to the handoff."""
        manifest, metadata = self.refresh(urls)
        self.hand_over(self.load(urls, manifest, metadata))

    def searchable(self) -> bool:
        """Whether anybody but the named providers may be asked."""
        return self.asks_nearby() or bool(self.dht_nodes())

    def asks_nearby(self) -> bool:
        """Whether this network may be asked: everybody on it hears what is looked for."""
        return self.parameters.mdns and self.mode.mdns

    def dht_nodes(self) -> tuple[tuple[str, int], ...]:
        """Nodes to ask the DHT through. What it finds may be anywhere, and who is asked learns of us."""
        return (self.parameters.dht or ()) if self.mode.dht else ()

    def boot_kept(self, kept: Cache) -> None:
        """Boot the release that is here whole. Returns only when it cannot: then nothing has happened."""
        try:
            marks.emit("discover", source="cache", count=0)
            self.stage = "trust"
            result = trust.refresh(
                self.root,
                kept.get,
                channel=self.parameters.channel,
                arch=self.arch,
                now=self.remembered.now(),
                others=self.remembered.for_what_is_kept(),
                policy=self.policy,
            )
            _believed(result, "cache")
            self.hand_over(self.load([], result.manifest, dict(result.metadata)))
        except HandoffError:
            raise
        except PhaseError as error:
            marks.say(f"{self.stage}: not from the cache: {error}")

    def hand_over(self, line: str) -> None:
        """Start the loaded kernel."""
        self.stage = "handoff"
        if self.cache is not None:
            self.machine.close_cache()
        self.assembly.stop_sharing()
        facts: dict[str, marks.Fact] = {}
        if self.machine.measure(self.events):
            facts["pcr"] = measured.PCR
        marks.say("starting the next kernel")
        marks.emit("handoff", "ok", t=None, cmdline=line, **facts)
        self.machine.start()

    def discover(self) -> list[str]:
        """Find providers: hints, in the order they are to be tried."""
        self.stage = "discover"
        found = [*self.search(), *self.named()]
        self.searches += 1
        if not found:
            # One that ends without anybody has had all the time there is for it.
            self.searches = len(GATHER)
            raise discovery.DiscoveryError(
                f"no provider of {self.parameters.channel}/{self.arch} was found",
                hint="Start `phase serve` on this network, or boot with phase.provider= or phase.dht=."
                if self.mode.mdns
                else f"{self.mode.name} mode asks nobody: name a provider with phase.provider=.",
            )
        marks.emit("discover", provider=found[0].url, source=found[0].source, count=len(found))
        return [provider.url for provider in found]

    def named(self) -> list[Provider]:
        """The providers that the command line names."""
        channel, arch = self.parameters.channel, self.arch
        return [Provider(url, channel, arch, None, "cmdline", "") for url in self.parameters.providers]

    def search(self) -> list[Provider]:
        """Ask the networks, unless the named providers are to be tried alone.

        Those come last afterwards: they have failed, and are still asked in each attempt.
        """
        if not self.others_too:
            return []
        self.waiting.what = f"a provider of {self.parameters.channel}/{self.arch} to answer on this network"
        found = self.machine.discover(
            Search(
                self.parameters.channel,
                self.arch,
                mdns=self.asks_nearby(),
                dht=self.dht_nodes(),
                timeout=min(max(self.left(), 1.0), 10.0),
                gather=GATHER[min(self.searches, len(GATHER) - 1)],
                last=self.useless | self.liars,
                now=self.remembered.now().timestamp(),
                besides=self.besides,
            )
        )
        named = self.parameters.providers
        return [provider for provider in found if provider.url not in named][: MAX_PROVIDERS - len(named)]

    def refresh(self, urls: list[str]) -> tuple[Manifest, dict[str, bytes]]:
        """Believe, or not, what the providers say the release is; one that lies does not stop the rest."""
        self.stage = "trust"
        self.waiting.what = f"{urls[0]} to say what the release is"
        url, result = refresh_from(
            urls,
            self.root,
            channel=self.parameters.channel,
            arch=self.arch,
            now=self.remembered.now(),
            deadline=time.monotonic() + self.left(),
            others=self.remembered.floors(),
            policy=self.policy,
            cached=self.cache.metadata() if self.cache else None,
            refused=self.refuse,
            way=self.way,
        )
        if self.cache:
            # Before the floor that asks for them: a kept release is believed by the same root.
            if_it_can(self.cache.keep_roots, result.metadata)
        self.remembered.raise_to(result.floor, result.manifest, write_firmware=self.may_write)
        _believed(result, url)
        return result.manifest, dict(result.metadata)

    def refuse(self, url: str, error: PhaseError) -> None:
        """Say why a provider is not believed; later searches put it behind all others."""
        if line := self.reasons.note(url, error):
            marks.say(f"trust: not from {line}")
        if len(self.useless) < _MOST_USELESS:
            self.useless.add(url)

    def here(self, manifest: Manifest) -> Here:
        """The chunks of the release that an earlier boot has kept, if that is another one."""
        here = Here()
        if self.cache is not None:
            kept = self.cache.metadata()
            if f"{manifest.version}.{role_name(manifest.channel, manifest.arch)}.json" not in kept:
                for release in releases(kept):
                    here.add_release(release, self.cache.open_kept)
        return here

    def load(self, urls: list[str], manifest: Manifest, metadata: dict[str, bytes]) -> str:
        """Get the release, and give its kernel to the running one.

        Returns:
            The second kernel's command line.
        """
        self.stage = "fetch"
        self.waiting.what = f"release {manifest.release} to arrive"
        # One that was named may be too slow, and others are quick: half of the time is left for them.
        share = 1 if self.others_too or not self.searchable() else 2
        # Where the one before cannot be had, the next attempt is for the newest again.
        chosen = manifest if self.fell_back else fallback.chosen(manifest, self.cache)
        self.fell_back = chosen is not manifest
        plan = self.assembly.fetch(
            chosen,
            metadata,
            urls,
            kept=self.cache,
            contents=manifest.contents,
            seconds=self.left() / share,
            here=self.here(manifest),
        )
        if urls:
            self.remembered.came_whole(manifest, write_firmware=self.may_write)
        self.stage = "verify"
        watched = fallback.watched(manifest, chosen, self.cache, self.parameters.watchdog)
        kernel = self.assembly.verify(chosen, plan, self.running, watched)
        self.stage = "load"
        file = f"{manifest.version}.{role_name(manifest.channel, manifest.arch)}.json"
        self.events = measured.events(metadata[file], kernel.line)
        self.waiting.what = "the running kernel to take the next one"
        try:
            self.machine.load(kernel)
        except LockedDownError:
            # It does not come up here, whatever it is: that counts as a start does.
            fallback.count(manifest, chosen, self.cache)
            raise
        fallback.count(manifest, chosen, self.cache)
        marks.emit("load")
        return kernel.line


def _way(mode: modes.Mode, tor: tuple[str, int] | None) -> Way:
    """How a mode gets to providers."""
    lonely = "" if mode.beyond else mode.name
    if mode.direct:
        return DIRECT._replace(lonely=lonely)
    if tor is None:
        return DIRECT._replace(
            refusal=f"{mode.name} mode fetches through Tor alone, and none is named",
            hint="Name Tor's SOCKS proxy with phase.tor=ADDRESS:PORT, or build the seed with --tor.",
        )
    return DIRECT._replace(lonely=lonely, proxy=tor)


def _overruled(mode: modes.Mode, parameters: cmdline.Parameters) -> list[str]:
    """What the command line asks for, and the mode does not allow: a line each."""
    return [f"phase.dht= is not used in {mode.name} mode"] if parameters.dht and not mode.dht else []


def _check_root(root: bytes, remembered: Remembered) -> None:
    """Refuse an image that no provider could help, before one is blamed."""
    try:
        trust.TrustedState(root, now=remembered.now())
    except trust.TrustError as error:
        raise BootError(
            f"the root built into this image cannot be used: {error.what}", hint="Build the seed anew."
        ) from error


def _believed(result: trust.Refreshed, provider: str) -> None:
    """Say what is believed, and what of it only by this image's grace."""
    manifest = result.manifest
    facts: dict[str, marks.Fact] = {"overdue": ", ".join(result.overdue)} if result.overdue else {}
    marks.emit(
        "trust", "ok", t=None, version=manifest.version, release=manifest.release, provider=provider, **facts
    )


def _grace(machine: Machine, mode: str) -> int:
    """Seconds for which this image takes expired timestamps and snapshots in a mode."""
    return int(machine.config(f"grace-{mode}") or b"0")


def _required(machine: Machine, name: str, *, hint: str) -> bytes:
    data = machine.config(name)
    if data is None:
        raise BootError(f"/etc/phase/{name} is not there", hint=hint)
    return data
