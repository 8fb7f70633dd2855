"""Messages of jobs: their published schemas, and what each refuses."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from phase.node import gateway
from phase.peer import messages
from phase.peer.framing import Kind, ProtocolError, check_head, pack
from phase.peer.messages import Offer, Question
from tests.fuzz import jobs as peers

SCHEMAS = {**messages.schemas(), **gateway.schemas()}


@pytest.mark.parametrize("said", [*peers.ASKED, *peers.SAID], ids=lambda said: type(said).__name__)
def test_each_message_is_what_its_schema_says(said: msgspec.Struct) -> None:
    schema: dict[str, Any] = SCHEMAS[f"{said.__struct_config__.tag}-v1.json"]
    jsonschema.Draft202012Validator.check_schema(schema)
    value = json.loads(msgspec.json.encode(said))
    jsonschema.validate(value, schema)
    wrongs: tuple[object, ...] = (value | {"type": "other"}, {}, [])
    for wrong in wrongs:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_schemas_are_published_where_they_are_said_to_be() -> None:
    tree = Path(messages.__file__).parents[1]
    names = {path.name for place in ("peer", "node") for path in (tree / place / "schemas").iterdir()}
    assert names == set(SCHEMAS)


@pytest.mark.parametrize(
    "change",
    [
        {"job": ""}, {"job": "a b"}, {"job": "a" * 129}, {"job": "a\n"}, {"nonce": "\x1b"},
        {"module": {"sha256": "x", "length": 1}}, {"module": {"sha256": "0" * 64, "length": -1}},
        {"limits": {"fuel": 0}}, {"arch": "vax"}, {"input": -1}, {"seed": -1}, {"attempt": 0}, {"demand": 1},
    ],
)  # fmt: skip
def test_an_offer_refuses_what_a_node_could_not_keep(change: dict[str, object]) -> None:
    good = json.loads(msgspec.json.encode(peers.OFFER))
    assert isinstance(messages.read(json.dumps(good).encode(), Question), Offer)
    with pytest.raises(ProtocolError):
        messages.read(json.dumps(good | change).encode(), Question)


def test_a_client_passes_over_what_newer_nodes_add() -> None:
    said = b'{"type":"accepted","send_module":true,"more":{"a":1}}'
    assert messages.read(said, messages.Accepted) == messages.Accepted(send_module=True)


@pytest.mark.parametrize("kind", Kind)
def test_a_frame_is_refused_by_its_length_before_it_is_read(kind: Kind) -> None:
    with pytest.raises(ProtocolError, match=kind.name.lower()):
        check_head(kind, (4 << 20) + 1)
    with pytest.raises(ProtocolError, match="the limit is 10"):
        check_head(Kind.MESSAGE, 11, message=10)
    assert pack(kind, b"abc") == bytes([kind, 0, 0, 0, 3]) + b"abc"


def test_there_is_no_other_kind_of_frame() -> None:
    with pytest.raises(ProtocolError, match="of the kind 9"):
        check_head(9, 0)
