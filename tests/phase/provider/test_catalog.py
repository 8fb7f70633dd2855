"""A role decides what its own channel and architecture offer, and nothing else."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from phase.provider import documents
from phase.provider.app import make_app
from phase.provider.store import Store
from phase.release.repository import Repository
from tests.phase.provider.conftest import KEYS, Publish

MakeClient = Callable[..., Awaitable[TestClient[Any, Any]]]
OURS = {"kernel": b"our kernel", "initramfs": b"our initramfs", "uki": b"our uki"}
THEIRS = {"kernel": b"their kernel", "initramfs": b"their initramfs", "uki": b"their uki"}
#: Everything that a provider answers of the release of stable/x86_64.
WAYS = (
    *("/stable/x86_64/manifest.json", "/stable/x86_64/boot.ipxe", "/stable/x86_64/boot.efi"),
    *(f"/stable/x86_64/{name}" for name in OURS),
    *(f"/targets/stable/x86_64/{name}" for name in OURS),
)
Role = dict[str, Any]


def claims_to_be_stable(role: Role) -> None:
    role["x-phase"] |= {"channel": "stable"}
    role["targets"] = {path.replace("testing/", "stable/"): facts for path, facts in role["targets"].items()}


def has_the_files_of_stable(role: Role) -> None:
    role["targets"] |= {
        path.replace("testing/", "stable/"): facts for path, facts in role["targets"].items()
    }


def takes_a_hashed_path(role: Role) -> None:
    digest = role["ours"]["stable/x86_64/kernel"]["hashes"]["sha256"]
    role["targets"][f"stable/x86_64/{digest}.kernel"] = role["targets"]["testing/x86_64/kernel"]


def gives_our_blobs_another_length(role: Role) -> None:
    for path, facts in role["ours"].items():
        role["targets"][path.replace("stable/", "testing/")] = facts | {"length": facts["length"] + 1}


LIES: dict[str, Callable[[Role], object]] = {
    "claims to be stable": claims_to_be_stable,
    "has the files of stable, too": has_the_files_of_stable,
    "takes a path with a hash": takes_a_hashed_path,
    "gives our blobs another length": gives_our_blobs_another_length,
    "has a hash that is not hex": lambda role: role["targets"]["testing/x86_64/kernel"]["hashes"].update(
        sha256="../../kernel"
    ),
    "has a version that is true": lambda role: role.update(version=True),
    "has no architecture": lambda role: role["x-phase"].pop("arch"),
    "is another architecture": lambda role: role["x-phase"].update(arch="arm64"),
    "is too long": lambda role: role.update(padding="x" * documents.MAX_METADATA),
    "has a name of two": lambda role: role["x-phase"].update(channel="stable/x86_64/../../stable"),
}


def forge(directory: Path, lie: Callable[[Role], object]) -> None:
    path = directory / "metadata/1.testing-x86_64.json"
    document = json.loads(path.read_bytes())
    role = document["signed"]
    role["ours"] = json.loads((directory / "metadata/1.stable-x86_64.json").read_bytes())["signed"][
        "targets"
    ]
    lie(role)
    del role["ours"]
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("lie", list(LIES))
async def test_the_catalogue_believes_a_roles_own_name(
    publish: Publish, aiohttp_client: MakeClient, lie: str
) -> None:
    directory = publish(**OURS)
    publish(channel="testing", **THEIRS)
    manifest = json.loads((directory / "metadata/1.stable-x86_64.json").read_bytes())
    ours = manifest["signed"]["targets"]
    digests = {path: facts["hashes"]["sha256"] for path, facts in ours.items()}
    ways = [
        *WAYS,
        *(f"/blobs/sha256/{digest}" for digest in digests.values()),
        f"/targets/stable/x86_64/{digests['stable/x86_64/kernel']}.kernel",
    ]

    async def answers() -> dict[str, tuple[int, bytes]]:
        client = await aiohttp_client(make_app(directory))
        asked = {way: await client.get(way, headers={"Host": "boot.example"}) for way in ways}
        return {way: (answer.status, await answer.read()) for way, answer in asked.items()}

    before = await answers()
    assert {status for status, _ in before.values()} == {200}
    forge(directory, LIES[lie])
    assert await answers() == before
    releases = Store(directory).current().releases
    assert releases["stable", "x86_64"].artifacts.keys() == OURS.keys()
    assert {place for place in releases if place[0] not in ("stable", "testing")} == set()


async def test_a_role_that_cannot_be_served_is_said_and_stops_no_other(
    publish: Publish, aiohttp_client: MakeClient
) -> None:
    directory = publish(**OURS)
    publish(channel="testing", **THEIRS)
    forge(directory, claims_to_be_stable)
    client = await aiohttp_client(make_app(directory))
    assert (await client.get("/testing/x86_64/kernel")).status == 404
    [problem] = (await (await client.get("/health")).json())["problems"]
    assert problem["part"] == "repository"
    assert "nothing of testing-x86_64 is served" in problem["text"]
    assert "says that it is a release of 'stable/x86_64'" in problem["text"]


def test_what_is_withdrawn_is_offered_no_longer(publish: Publish) -> None:
    """The snapshot goes on to name it; nothing of it is served, and its end is nobody's concern."""
    directory = publish(channel="beta", **OURS)
    publish(**THEIRS)
    repository = Repository.open(directory, keys=KEYS)
    repository.withdraw("beta", "x86_64")
    repository.publish()
    offered = Store(directory).current()
    assert set(offered.releases) == {("stable", "x86_64")}
    assert "beta-x86_64" not in offered.expires
    assert not [path for path in offered.targets if path.startswith("beta/")]
