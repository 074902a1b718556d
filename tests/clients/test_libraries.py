"""Every client library unchanged, through both doors: vectors, order, usage and errors as its users see them.

The first word of a test's name is its column in the table.
"""

import base64
import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import fsum, isclose
from typing import Any

import httpx
import pytest
import tiktoken

from tests.clients.catalog import Client, asked
from tests.clients.conftest import MODEL, Reference, Served, post
from tests.stack.ministack import Tables

Ask = Callable[[str], Reference]


def clients(*, sends_ids: bool | None = None) -> pytest.MarkDecorator:
    """The test is done with each client that is asked, or with those of them that send token ids."""
    chosen = {name: each for name, each in asked().items() if sends_ids in (None, each.sends_ids)}
    return pytest.mark.parametrize("client", chosen.values(), ids=chosen)


SENTENCE = "A lake of cold water lies between two old hills where nobody has built anything for a very long time. "
TEXTS = [(SENTENCE * 4)[i : i + 2 + i * 137 % 400] + f" {i}" for i in range(56)]
TEXTS += ["the quick brown fox", "Größe, 数字 and 🚀", "e\u0301 is é", "</s> [SEP] <mask>"]
EMPTY = ["", "a", ""]
LONG = "water " * 300

# What succeeds, then what is refused.
CALLS: dict[str, dict[str, Any]] = {
    "one": {"texts": TEXTS[-4:-3], "alone": True},
    "batch": {"texts": TEXTS},
    "empty": {"texts": EMPTY},
    "too long": {"texts": [LONG]},
    "wrong key": {"texts": ["a"], "key": "sk-wrong"},
    "unknown model": {"texts": ["a"], "model": "text-embedding-9"},
    "empty array": {"texts": []},
}
REFUSALS = {
    "wrong key": (401, "invalid_api_key", "Incorrect API key provided."),
    "unknown model": (404, "model_not_found", "The model 'text-embedding-9' does not exist"),
    "too long": (400, "context_length_exceeded", "maximum context length is 256 tokens"),
    "empty array": (400, "empty_array", "Expected an array with minimum length 1."),
}


@dataclass(frozen=True)
class Heard:
    """What a program told of each call, and what the ledger holds of them all."""

    answers: Mapping[str, Any]
    records: list[dict[str, Any]]

    def vectors(self, call: str) -> list[bytes]:
        assert "error" not in self.answers[call], self.answers[call]
        return [base64.b64decode(vector) for vector in self.answers[call]["vectors"]]


@pytest.fixture(scope="session")
def hear(offline: dict[str, str], tables: Tables) -> Callable[[Client, str], tuple[str, Heard]]:
    """Run a client's program against a service, once: the library with its version, and what was heard."""
    found: dict[tuple[str, str], tuple[str, Heard]] = {}

    def run(client: Client, url: str) -> tuple[str, Heard]:
        if (client.title, url) not in found:
            account = f"acct_{hashlib.sha256(f'{client.title} {url}'.encode()).hexdigest()[:12]}"
            calls = CALLS | {"chunks": {"texts": TEXTS, "chunk": client.chunk}} if client.chunk else CALLS
            told = client.ask(url, tables.create_key(account, "inference"), MODEL, calls, offline)
            records = [record for record in tables.records() if record["pk"]["S"].startswith(f"{account}#")]
            heard = Heard(dict(zip(calls, told["answers"], strict=True)), records)
            found[client.title, url] = told["library"], heard
        return found[client.title, url]

    return run


@pytest.fixture
def heard(
    request: pytest.FixtureRequest,
    client: Client,
    door: Served,
    hear: Callable[[Client, str], tuple[str, Heard]],
    record_property: Callable[[str, object], None],
) -> Heard:
    """What this client got through this door."""
    record_property("client", client.title)
    record_property("check", request.function.__name__.split("_")[1])
    library, heard = hear(client, door.url)
    record_property("library", library)
    return heard


@clients()
def test_vectors_are_the_services_own_to_the_last_bit(heard: Heard, reference: Ask) -> None:
    assert heard.vectors("one") == [reference("the quick brown fox").vector]
    assert set(heard.vectors("batch")) == {reference(text).vector for text in TEXTS}


@clients()
def test_order_is_that_of_the_texts_also_over_several_requests(heard: Heard, client: Client, reference: Ask) -> None:
    wanted = [reference(text).vector for text in TEXTS]

    assert len(set(wanted)) == len(TEXTS)
    assert heard.vectors("batch") == wanted
    assert heard.answers["batch"]["indexes"] in (None, [*range(len(TEXTS))])
    if client.chunk:
        assert heard.vectors("chunks") == wanted


@clients()
def test_empty_texts_are_embedded(heard: Heard, reference: Ask) -> None:
    assert heard.vectors("empty") == [reference(text).vector for text in EMPTY]


@clients()
def test_usage_is_what_the_library_shows_and_the_ledger_holds(heard: Heard, client: Client, reference: Ask) -> None:
    tokens = {name: sum(reference(text).tokens for text in CALLS[name]["texts"]) for name in ("one", "batch", "empty")}

    if client.tells_usage:
        assert {name: set(heard.answers[name]["tokens"]) for name in tokens} == {
            name: {n} for name, n in tokens.items()
        }
    if client.tells_model:
        assert {heard.answers[name]["model"] for name in tokens} == {MODEL}
    billed = sum(tokens.values()) + (tokens["batch"] if client.chunk else 0)
    if client.sends_ids:  # then a long text is no error
        billed += 2 * reference(LONG[: len(LONG) // 2]).tokens
    assert sum(int(record["tokens"]["N"]) for record in heard.records) == billed
    assert len(heard.records) == client.requests


@clients()
@pytest.mark.parametrize("case", REFUSALS)
def test_errors_are_of_the_class_that_users_catch_and_say_why(heard: Heard, client: Client, case: str) -> None:
    if case not in client.errors:
        assert "error" not in heard.answers[case], heard.answers[case]
        return
    status, code, message = REFUSALS[case]
    error = heard.answers[case]["error"]

    assert error["name"] == client.errors[case]
    assert error["status"] == (None if error["name"] == "ContextOverflowError" else status)  # LangChain.js's own
    assert error["code"] in (None, code)  # None: not shown
    assert message in error["message"]
    assert "sk-wrong" not in error["message"]


@clients(sends_ids=True)
def test_windows_are_averaged_where_ids_are_more_than_the_context(
    heard: Heard,
    door: Served,
    offline: dict[str, str],
    inference_key: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", offline["TIKTOKEN_CACHE_DIR"])
    ids = tiktoken.get_encoding("cl100k_base").encode(LONG)

    with httpx.Client(base_url=door.url, headers={"authorization": f"Bearer {inference_key}"}) as http:
        answer = post(http, {"model": MODEL, "input": [ids], "encoding_format": "base64"})

    assert answer.headers["x-emblet-token-arrays"] == "cl100k"
    assert answer.json()["averaged"] == [0]
    [vector] = heard.vectors("too long")
    assert vector == base64.b64decode(answer.json()["data"][0]["embedding"])
    assert isclose(fsum(x * x for x in struct.unpack(f"<{len(vector) // 4}f", vector)), 1, rel_tol=1e-5)
