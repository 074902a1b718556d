"""gzip: for JSON of 1 KiB and more, where it is offered, and never for base64."""

import base64
import gzip
import json

import pytest

from handler.api import coding
from tests.api.conftest import MODEL, Door
from tests.stack.frontdoor import FrontDoor

ACCEPTED = [
    "gzip",
    "gzip, deflate",
    "*",
    "GZIP;q=0.1",
    "br, gzip;q=1.0",
    "identity;q=0, *;q=0.5",
    "deflate,gzip ; q=1",
    "gzip;q=1;x=y",
]
REFUSED = [
    "",
    "identity",
    "br",
    "gzip;q=0",
    "gzip;q=0.0, *",
    "*;q=0",
    "gzip;q=none",
    "gzipped",
    "x;gzip",
    "gzip;q=inf",
    "gzip;q=2",
]


@pytest.mark.parametrize("accept", ACCEPTED)
def test_a_float_answer_is_gzipped_where_it_is_offered(door: Door, accept: str) -> None:
    plain = door.embed(headers={"accept-encoding": "identity"})
    answer = door.embed(headers={"accept-encoding": accept})
    assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip")
    assert answer.headers["vary"] == "Accept-Encoding"
    assert int(answer.headers["content-length"]) < len(plain.content) / 2
    assert answer.json() == plain.json()


@pytest.mark.parametrize("accept", REFUSED)
def test_it_is_plain_where_it_is_not(door: Door, accept: str) -> None:
    answer = door.embed(headers={"accept-encoding": accept})
    assert "content-encoding" not in answer.headers
    assert answer.headers["vary"] == "Accept-Encoding"  # a cache must know that another caller's may differ
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_base64_vectors_are_plain(door: Door) -> None:
    answer = door.embed(input=["one", "two"], encoding_format="base64", headers={"accept-encoding": "gzip"})
    assert len(answer.content) > 1024
    assert not {"content-encoding", "vary"} & answer.headers.keys()


def test_so_is_what_is_short_and_what_is_no_json(door: Door) -> None:
    for path in ("/v1/models/none", "/health", "/"):
        answer = door.ask("GET", path, headers={"accept-encoding": "gzip"})
        assert not {"content-encoding", "vary"} & answer.headers.keys()


def test_json_begins_to_be_gzipped_at_1_kib() -> None:
    def gains(length: int, kind: str = "application/json", **more: str) -> bool:
        headers = {"content-type": kind, "content-length": str(length)} | more
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        return coding._gains({"headers": raw})

    assert gains(1024)
    assert not gains(1023)
    assert not gains(9999, "text/html; charset=utf-8")
    assert not gains(9999, content_encoding="gzip")


def test_large_answers_too_come_whole(door: Door) -> None:
    texts = [f"text {number}" for number in range(200)]
    answer = door.embed(input=texts, headers={"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.content) > coding._INLINE  # compressed in a thread, beside other callers
    assert answer.json() == door.embed(input=texts, headers={"accept-encoding": "identity"}).json()


def test_the_function_hands_lambda_the_compressed_body_in_base64_and_it_is_smaller_so(
    function_url: FrontDoor, inference_key: str
) -> None:
    def result(accept: str) -> dict[str, object]:
        answer: dict[str, object] = function_url.invoke(
            {
                "version": "2.0",
                "headers": {"authorization": f"Bearer {inference_key}", "accept-encoding": accept, "host": "x"},
                "requestContext": {"http": {"method": "POST", "path": "/v1/embeddings", "sourceIp": "127.0.0.1"}},
                "body": json.dumps({"model": MODEL, "input": ["a", "b"]}),
            }
        )
        return answer

    packed, plain = result("gzip"), result("identity")
    assert (packed["isBase64Encoded"], plain["isBase64Encoded"]) == (True, False)
    assert gzip.decompress(base64.b64decode(str(packed["body"]))).decode() == plain["body"]
    assert len(json.dumps(packed)) < 0.7 * len(json.dumps(plain))
