"""Where limits stand in the order of checks, and what happens when their table is not to be had."""

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from handler import store
from handler.api.app import create_app
from handler.billing.keytable import KeyTable
from handler.billing.ledger import Ledger, Record
from handler.contract.limits import Limits
from handler.engine.engine import Engine, NonFiniteVectorError
from handler.service import Service
from handler.settings import Settings
from tests.api.described import conforms
from tests.stack.ministack import Tables

BODY: dict[str, Any] = {"model": "all-minilm-l6-v2", "input": "the quick brown fox"}  # 4 tokens
LIMITS = Limits(requests_per_minute=100, tokens_per_minute=1000, tokens_per_month=10_000)


def config(minilm: Path, tables: Tables, limits_table: str) -> Settings:
    return Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage, limits_table=limits_table)


@pytest.fixture(scope="module")
def service(minilm: Path, tables: Tables) -> Service:
    made = Service.open(config(minilm, tables, tables.limits))
    made.load()
    return made


def client(service: Service, key: str, room: int | None = None) -> TestClient:
    headers = {"authorization": f"Bearer {key}"}
    return TestClient(create_app(service, room), headers=headers, raise_server_exceptions=False)


@pytest.fixture
def http(service: Service, tables: Tables) -> Iterator[TestClient]:
    """With a key of its own, which has limits."""
    with client(service, tables.create_key("acct_limited", "inference", LIMITS)) as made:
        yield made


def test_what_is_refused_before_the_quota_touches_no_counter(http: TestClient, tables: Tables) -> None:
    before = tables.counters()
    refused = [
        http.post("/v1/embeddings", content=b"{"),
        http.post("/v1/embeddings", json=BODY | {"model": "nope"}),
        http.post("/v1/embeddings", json=BODY | {"input": []}),
        http.post("/v1/embeddings", json=BODY | {"input": "word " * 300}),
        http.post("/v1/embeddings", json=BODY | {"input": ["word " * 254] * 1200}),
        http.get("/v1/embeddings"),
    ]
    assert [each.status_code for each in refused] == [400, 404, 400, 400, 400, 405]
    assert tables.counters() == before


def test_an_answer_that_would_not_fit_touches_no_counter(service: Service, tables: Tables) -> None:
    before = tables.counters()
    with client(service, tables.create_key("acct_limited", "inference", LIMITS), room=10_000) as http:
        answer = http.post("/v1/embeddings", json=BODY | {"input": ["text"] * 50})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "response_too_large")
    assert tables.counters() == before


def test_what_limits_refuse_never_reaches_the_engine(
    service: Service, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(self: Engine, ids: Any, deadline: Any = None, gone: Any = None) -> Any:
        raise AssertionError("the model was run")

    monkeypatch.setattr(Engine, "encode", encode)
    for limits in (Limits(tokens_per_minute=3), Limits(tokens_per_month=3)):
        with client(service, tables.create_key("acct_limited", "inference", limits)) as http:
            assert http.post("/v1/embeddings", json=BODY).status_code == 429


def test_a_later_failure_tells_of_limits_too_and_gives_nothing_back(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Engine, ids: Any, deadline: Any = None, gone: Any = None) -> Any:
        raise NonFiniteVectorError(0)

    def away(self: Ledger, record: Record) -> bool:
        raise store.StoreUnavailableError("ReadTimeoutError")

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "encode", broken)
        first = http.post("/v1/embeddings", json=BODY)
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "write", away)
        second = http.post("/v1/embeddings", json=BODY)
    third = http.post("/v1/embeddings", json=BODY)
    answers = (first, second, third)
    assert [each.status_code for each in answers] == [500, 503, 200]
    document = http.get("/openapi.json").json()
    for each in answers:
        conforms(document, "POST", "/v1/embeddings", each)
    # Less than in the answer before, unless the minute has turned in between.
    assert {"x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens"} <= set(first.headers) & set(second.headers)
    left = [int(each.headers["x-ratelimit-remaining-requests"]) for each in answers]
    assert left in ([99, 98, 97], [99, 98, 99], [99, 99, 98])


def test_a_key_with_limits_is_not_served_without_their_table_and_others_are(
    minilm: Path, tables: Tables, inference_key: str, caplog: pytest.LogCaptureFixture
) -> None:
    bare = Service.open(config(minilm, tables, limits_table=""))
    bare.load()
    limited = tables.create_key("acct_limited", "inference", LIMITS)
    with caplog.at_level(logging.ERROR), client(bare, limited) as http:
        answer = http.post("/v1/embeddings", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert 1 <= int(answer.headers["retry-after"]) <= 10
    [logged] = [each.getMessage() for each in caplog.records if "LIMITS_TABLE is not set" in each.getMessage()]
    assert "has limits" in logged
    assert limited not in logged
    with client(bare, inference_key) as http:
        assert http.post("/v1/embeddings", json=BODY).status_code == 200


def test_a_limits_table_out_of_reach_is_503_and_nothing_is_billed(
    minilm: Path, tables: Tables, inference_key: str
) -> None:
    lost = Service.open(config(minilm, tables, limits_table="no-such-table"))
    lost.load()
    before = len(tables.records())
    with client(lost, tables.create_key("acct_limited", "inference", LIMITS)) as http:
        answer = http.post("/v1/embeddings", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert len(tables.records()) == before
    with client(lost, inference_key) as http:
        assert http.post("/v1/embeddings", json=BODY).status_code == 200, "it has no limits"


def test_limits_change_within_a_minute_of_the_operators_word(
    service: Service, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = KeyTable(store.dynamodb, tables.keys)
    clear, key = operator.create("acct_limited", "inference", "")
    with client(service, clear) as http:
        assert http.post("/v1/embeddings", json=BODY).status_code == 200
        operator.limit(key.caller.key_id, {"tokens_per_minute": 3})
        monkeypatch.setattr(service.keys, "_clock", lambda: time.time() + 60)
        assert http.post("/v1/embeddings", json=BODY).status_code == 429
