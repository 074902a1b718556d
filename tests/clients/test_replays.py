"""The requests of clients that cannot be run here, sent without their code, through both doors."""

import base64
import struct
from collections.abc import Callable

import httpx
import pytest

from tests.clients import catalog
from tests.clients.conftest import MODEL, Reference, Served
from tests.clients.replays import REPLAYS, Replay

pytestmark = catalog.unless_named(catalog.REPLAYS)


@pytest.mark.parametrize("replay", REPLAYS, ids=lambda replay: f"{replay.client}: {replay.what}")
def test_a_request_as_a_client_sends_it_is_answered(
    replay: Replay,
    door: Served,
    inference_key: str,
    reference: Callable[[str], Reference],
    record_property: Callable[[str, object], None],
) -> None:
    record_property("client", replay.client)
    record_property("library", "none: request replayed")
    record_property("check", replay.what)
    headers = {name: value.replace("{key}", inference_key) for name, value in replay.headers.items()}

    answer = httpx.post(door.url + replay.path, json={"model": MODEL, **replay.body}, headers=headers)

    assert answer.status_code == 200, answer.text
    body, wanted = answer.json(), [reference(text) for text in replay.texts]
    vectors = [item["embedding"] for item in body["data"]]
    as_asked = str if replay.body.get("encoding_format") == "base64" else list
    assert all(type(vector) is as_asked for vector in vectors)
    assert [_float32(vector) for vector in vectors] == [each.vector for each in wanted]
    tokens = sum(each.tokens for each in wanted)
    assert (body["model"], body["usage"]) == (MODEL, {"prompt_tokens": tokens, "total_tokens": tokens})


def _float32(vector: str | list[float]) -> bytes:
    return base64.b64decode(vector) if isinstance(vector, str) else struct.pack(f"<{len(vector)}f", *vector)
