"""Every attack against the real client: refused, contained, and no obstacle beside an honest provider."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from fixtures.hostile import Attack, Provider, World, attacks
from fixtures.hostile.dht import LIES, Lie, Town, answer
from fixtures.hostile.table import lie_row, row
from fixtures.hostile.trial import fetch, published, refusal

_PAGE = Path(__file__).resolve().parents[2] / "docs/develop/attacks.md"
#: Buffers for a chunk of each provider, metadata at its limits, and what this process itself serves.
_MEMORY = 64 << 20
#: Seconds beyond its own time-out that a busy machine may need to end.
_MARGIN = 5.0
each = pytest.mark.parametrize("attack", attacks(), ids=lambda attack: attack.name)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with published() as world:
        yield world


def _release(world: World) -> dict[str, bytes]:
    """Name and bytes of what a client must end with."""
    provider = Provider(world)
    return {path.lstrip("/"): world.now[path] for path in map(provider.blob, ("kernel", "initramfs"))}


@each
def test_alone_it_is_refused(world: World, attack: Attack, tmp_path: Path) -> None:
    outcome = fetch(world, attack, tmp_path, honest=False)
    assert outcome.strayed == []
    assert outcome.grown < _MEMORY
    assert outcome.seconds < outcome.allowed + _MARGIN
    assert attack.says in outcome.errors
    assert outcome.errors.replace("\n", "").isprintable()
    assert outcome.code == (1 if attack.says else 0), outcome.errors
    if not attack.says:
        arrived = world.before if attack.arrives else world.now
        assert outcome.files["metadata/timestamp.json"] == arrived["/metadata/timestamp.json"]
    # Whatever lies under a blob's name is that blob; what is half there holds only verified chunks.
    truth = {path.rpartition("/")[2]: body for path, body in world.now.items() if "/blobs/" in path}
    for path, data in outcome.files.items():
        name = Path(path).name
        if name in truth:
            assert sha256(data).hexdigest() == name
        elif name.endswith(".part"):
            whole = truth[name.split(".")[1]]
            # The chunks of these files are so long.
            for start in range(0, len(data), 1 << 18):
                block = data[start : start + (1 << 18)]
                assert block in (whole[start : start + (1 << 18)], bytes(len(block)))
    said = refusal(outcome)
    assert row(attack, said) in _PAGE.read_text(), (
        "python -m fixtures.hostile table > docs/develop/attacks.md"
    )


@each
def test_an_honest_provider_beside_it_is_enough(world: World, attack: Attack, tmp_path: Path) -> None:
    outcome = fetch(world, attack, tmp_path, honest=True)
    assert outcome.code == 0, outcome.errors
    assert outcome.strayed == []
    assert outcome.grown < _MEMORY
    assert outcome.seconds < outcome.allowed + _MARGIN
    release = _release(world)
    assert {path: outcome.files.get(path) for path in release} == release
    assert outcome.files["metadata/timestamp.json"] == world.now["/metadata/timestamp.json"]


def test_the_page_has_every_attack_and_no_other() -> None:
    found = [line.split("|")[1].strip() for line in _PAGE.read_text().splitlines() if line.startswith("| ")]
    names = [attack.name for attack in attacks()]
    lies = [lie.name for lie in LIES]
    assert sorted(name for name in found if name not in ("attack", "lie")) == sorted([*names, *lies])
    assert len(names) >= 45
    assert len({attack.line for attack in attacks()}) == len(names)


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_a_lie_in_the_dht_is_not_kept(lie: Lie) -> None:
    assert answer(lie, Town())
    assert lie_row(lie) in _PAGE.read_text(), "python -m fixtures.hostile table > docs/develop/attacks.md"
