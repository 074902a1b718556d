"""A request that is repeated, through both doors: answered again, and billed once."""

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import httpx2  # the SDK's own
import openai
import pytest

from tests.doors.conftest import Server
from tests.doors.test_lambda import MODEL, client, url_event
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import Tables

TEXT, TOKENS = "the quick brown fox", 4  # by MODEL's tokenizer


@pytest.fixture
def account() -> str:
    """An account of its own for each test."""
    return f"acct_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def key(tables: Tables, account: str) -> str:
    return tables.create_key(account, "inference")


@pytest.fixture
def billed(tables: Tables, account: str) -> Callable[[], int]:
    """The account's tokens in the ledger."""

    def sum_up() -> int:
        return sum(int(item["tokens"]["N"]) for item in tables.records() if item["pk"]["S"].startswith(f"{account}#"))

    return sum_up


def embed(
    server: Server, key: str, headers: dict[str, str], path: str = "/v1/embeddings", **body: Any
) -> httpx.Response:
    asked = {"model": MODEL, "input": TEXT, "encoding_format": "base64"} | body
    named = {"authorization": f"Bearer {key}"} | headers
    sent = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
    return httpx.post(server.url + path, json=asked, headers=sent, timeout=60)


def replayed(answer: httpx.Response) -> bool:
    assert answer.status_code == 200, answer.text
    return bool(answer.headers.get("x-emblet-replay") == "true")


# Idempotency-Key


def test_a_request_with_a_key_that_was_seen_is_answered_again_and_not_billed(
    server: Server, key: str, billed: Callable[[], int]
) -> None:
    first, second = (embed(server, key, {"Idempotency-Key": "order 77 / part #3"}) for _ in range(2))
    assert (replayed(first), replayed(second)) == (False, True)
    assert first.json() == second.json()
    assert billed() == TOKENS


def test_a_key_with_another_body_is_refused_without_vectors_and_not_billed(
    server: Server, key: str, billed: Callable[[], int]
) -> None:
    headers = {"Idempotency-Key": "k"}
    embed(server, key, headers)
    for answer in (embed(server, key, headers, input="jumps over"), embed(server, key, headers, path="/invocations")):
        assert answer.status_code == 400
        assert answer.json()["error"] == {
            "message": "This Idempotency-Key was used with a different request.",
            "type": "invalid_request_error",
            "param": "Idempotency-Key",
            "code": "idempotency_key_reused",
        }
        assert "x-emblet-replay" not in answer.headers
    assert billed() == TOKENS


def test_a_key_is_its_accounts_own(server: Server, key: str, tables: Tables) -> None:
    other = tables.create_key(f"acct_{uuid.uuid4().hex[:12]}", "inference")
    assert not any(replayed(embed(server, each, {"Idempotency-Key": "shared"})) for each in (key, other))


@pytest.mark.parametrize(
    ("given", "fine"),
    [("x" * 255, True), ("~ !", True), ("x" * 256, False), ("", False), ("a\tb", False), ("é", False)],
)
def test_a_key_is_1_to_255_printable_ascii_characters(
    server: Server, key: str, billed: Callable[[], int], given: str, *, fine: bool
) -> None:
    answer = embed(server, key, {"Idempotency-Key": given})
    assert (answer.status_code == 200) == fine
    if not fine:
        assert answer.json()["error"] == {
            "message": "Idempotency-Key must be 1 to 255 printable ASCII characters.",
            "type": "invalid_request_error",
            "param": "Idempotency-Key",
            "code": "invalid_idempotency_key",
        }
        assert billed() == 0


def test_a_refused_request_leaves_its_key_free(server: Server, key: str, billed: Callable[[], int]) -> None:
    headers = {"Idempotency-Key": "once more"}
    assert embed(server, key, headers, input=[]).status_code == 400
    assert not replayed(embed(server, key, headers))
    assert billed() == TOKENS


def test_a_clear_key_is_stored_nowhere(server: Server, key: str, tables: Tables) -> None:
    embed(server, key, {"Idempotency-Key": "jane.doe@example.com"})
    assert "jane" not in str(tables.remembered())


def test_an_sdk_that_makes_a_key_for_each_call_is_billed_for_each(
    server: Server, key: str, billed: Callable[[], int]
) -> None:
    sdk = client(server, key)
    sdk._idempotency_header = "Idempotency-Key"
    for _ in range(2):
        sdk.embeddings.create(model=MODEL, input=TEXT)
    assert billed() == 2 * TOKENS


# An SDK's own retries


def test_an_sdks_retry_of_an_answer_that_was_lost_is_billed_once(
    server: Server, key: str, billed: Callable[[], int]
) -> None:
    lost: list[int] = []

    def lose_the_first(answer: httpx2.Response) -> None:
        if not lost:
            lost.append(answer.status_code)
            raise httpx2.ReadError("the connection broke")

    with httpx2.Client(event_hooks={"response": [lose_the_first]}) as http:
        sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, http_client=http, max_retries=2)
        answer = sdk.embeddings.with_raw_response.create(model=MODEL, input=TEXT)
    assert lost == [200]
    assert answer.headers["x-emblet-replay"] == "true"
    assert billed() == answer.parse().usage.total_tokens == TOKENS


def test_each_count_is_excused_once_for_each_record(server: Server, key: str, billed: Callable[[], int]) -> None:
    """Two calls with one body, both of them repeated, are two records."""
    answers = [embed(server, key, {"x-stainless-retry-count": count}) for count in ("0", "0", "1", "1", "1")]
    assert [replayed(answer) for answer in answers] == [False, False, True, True, False]
    assert billed() == 3 * TOKENS


@pytest.mark.parametrize("count", ["-1", "1.5", "one", "99999", ""])
def test_what_is_no_count_makes_a_request_its_own_work(
    server: Server, key: str, billed: Callable[[], int], count: str
) -> None:
    embed(server, key, {})
    assert not replayed(embed(server, key, {"x-stainless-retry-count": count}))
    assert billed() == 2 * TOKENS


def test_a_retry_of_a_call_with_a_key_is_known_by_its_key_alone(
    server: Server, key: str, billed: Callable[[], int]
) -> None:
    embed(server, key, {"Idempotency-Key": "a"})
    assert not replayed(embed(server, key, {"x-stainless-retry-count": "1"}))
    assert not replayed(embed(server, key, {"Idempotency-Key": "b", "x-stainless-retry-count": "1"}))
    assert billed() == 3 * TOKENS


# The same event


def test_an_event_that_is_delivered_twice_is_one_request(
    function_url: FrontDoor, key: str, billed: Callable[[], int]
) -> None:
    first, second = (function_url.invoke(url_event(key)) for _ in range(2))
    assert "x-emblet-replay" not in first["headers"]
    assert second["headers"]["x-emblet-replay"] == "true"
    assert first["headers"]["x-request-id"] == second["headers"]["x-request-id"]
    assert first["body"] == second["body"]
    assert billed() == TOKENS
