"""What a caller sees when the service is not well. Faults are put in by hand: no real part makes them on call."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from handler import store
from handler.api.app import create_app
from handler.billing import keys
from handler.billing.ledger import Ledger, Outcome, Record
from handler.contract.errors import ApiError
from handler.engine.engine import Engine, NonFiniteVectorError
from handler.service import Service
from handler.settings import SettingError, Settings
from tests.stack.ministack import Tables


@pytest.fixture
def service(minilm: Path, tables: Tables) -> Service:
    return Service.open(
        Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage, max_body_bytes=2000)
    )


@pytest.fixture
def http(service: Service, inference_key: str) -> Iterator[TestClient]:
    headers = {"authorization": f"Bearer {inference_key}"}
    with TestClient(create_app(service), headers=headers, raise_server_exceptions=False) as client:
        yield client


BODY: dict[str, Any] = {"model": "all-minilm-l6-v2", "input": "text"}


def test_before_the_model_is_loaded_work_is_503_and_the_process_is_alive(http: TestClient) -> None:
    assert http.get("/health").status_code == 200
    for answer in (http.get("/ready"), http.get("/ping"), http.post("/v1/embeddings", json=BODY)):
        assert answer.status_code == 503
        assert answer.json()["error"] == {
            "message": "The model is loading. Please try again in 2 seconds.",
            "type": "service_unavailable_error",
            "param": None,
            "code": "model_loading",
        }
        assert 1 <= int(answer.headers["retry-after"]) <= 10
        assert int(answer.headers["retry-after-ms"]) == 1000 * int(answer.headers["retry-after"])


def test_once_loaded_it_is_ready(http: TestClient, service: Service) -> None:
    service.load()
    assert http.get("/ready").status_code == http.post("/v1/embeddings", json=BODY).status_code == 200


def test_requests_that_wait_for_the_engine_keep_nobody_else_waiting(
    http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.load()
    assert http.get("/v1/models").status_code == 200  # the key is remembered from here on
    encode, free = Engine.encode, threading.Event()

    def waiting(self: Engine, ids: Any, deadline: Any = None, gone: Any = None) -> Any:
        free.wait(60)
        return encode(self, ids, deadline)

    monkeypatch.setattr(Engine, "encode", waiting)
    with ThreadPoolExecutor(62) as callers:
        embedded = [callers.submit(http.post, "/v1/embeddings", json=BODY) for _ in range(60)]
        try:
            found = callers.submit(http.get, "/v1/models")
            for _ in range(60):
                if found.done():
                    break
                time.sleep(0.1)
            answered_while_they_waited = found.done()
            wrong = http.get("/v1/models", headers={"authorization": f"Bearer {keys.make()}"})
        finally:
            free.set()
        assert answered_while_they_waited
        assert wrong.status_code == 401
        assert {each.result().status_code for each in embedded} == {200}


def test_a_setting_decides_whether_an_empty_text_is_embedded(minilm: Path, tables: Tables) -> None:
    config = Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage)
    body = b'{"model": "all-minilm-l6-v2", "input": ""}'
    assert Service.open(config).read(body).texts == ("",)
    with pytest.raises(ApiError, match="400 empty_string"):
        Service.open(replace(config, empty_input="reject")).read(body)


def test_without_its_record_no_answer_leaves(
    http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.load()

    def away(self: Ledger, record: Record) -> bool:
        raise store.StoreUnavailableError("ReadTimeoutError")

    monkeypatch.setattr(Ledger, "write", away)
    answer = http.post("/v1/embeddings", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert "embedding" not in answer.json()


def test_the_record_is_written_after_the_answer_is_made_and_before_it_leaves(
    http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.load()
    steps: list[str] = []
    write, render = Ledger.write, __import__("handler.render", fromlist=["embeddings"]).embeddings

    def written(self: Ledger, record: Record) -> Outcome:
        steps.append("recorded")
        return write(self, record)

    def rendered(*arguments: Any, **listed: Any) -> bytes:
        steps.append("made")
        return bytes(render(*arguments, **listed))

    monkeypatch.setattr(Ledger, "write", written)
    monkeypatch.setattr("handler.render.embeddings", rendered)
    assert http.post("/v1/embeddings", json=BODY).status_code == 200
    assert steps == ["made", "recorded"]


def test_a_non_finite_vector_is_a_500_that_is_not_billed_or_retried(
    http: TestClient, service: Service, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.load()
    before = len(tables.records())

    def broken(self: Engine, ids: Any, deadline: Any = None, gone: Any = None) -> Any:
        raise NonFiniteVectorError(3)

    monkeypatch.setattr(Engine, "encode", broken)
    answer = http.post("/v1/embeddings", json=BODY)
    assert answer.status_code == 500
    assert answer.json()["error"] == {
        "message": "The model produced no finite vector for input[3].",
        "type": "server_error",
        "param": "input[3]",
        "code": "non_finite_vector",
    }
    assert answer.headers["x-should-retry"] == "false"
    assert len(tables.records()) == before


def test_an_exception_of_our_own_has_the_envelope_and_tells_nothing_but_the_request(
    http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.load()

    def broken(self: Engine, ids: Any, deadline: Any = None, gone: Any = None) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Engine, "encode", broken)
    answer = http.post("/v1/embeddings", json=BODY)
    assert answer.status_code == 500
    request_id = answer.headers["x-request-id"]
    assert answer.json()["error"] == {
        "message": f"The server had an error while processing your request. (request id {request_id})",
        "type": "server_error",
        "param": None,
        "code": None,
    }


def test_a_keys_table_out_of_reach_is_503(http: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(hashed: str) -> None:
        raise store.StoreUnavailableError("EndpointConnectionError")

    monkeypatch.setattr(service.keys, "_read", away)
    answer = http.post("/v1/embeddings", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_413_whether_its_length_is_declared_or_not(http: TestClient, declared: bool) -> None:
    content: Any = b"x" * 2001 if declared else iter([b"x" * 1000, b"x" * 1001])
    answer = http.post("/v1/embeddings", content=content)
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "The request body is 2001 bytes; at most 2000 are accepted."


@pytest.mark.parametrize("length", ["9" * 5000, "00000002001", "2001"])
def test_a_declared_length_over_the_limit_is_413_however_it_is_written(http: TestClient, length: str) -> None:
    answer = http.post("/v1/embeddings", content=b"{}", headers={"content-length": length})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_a_loaded_engine_stays_the_same_when_loading_is_asked_for_again(service: Service) -> None:
    service.load()
    engine = service._engine
    service.load()
    assert service._engine is engine
    assert engine is not None
    assert engine.encode(engine.tokens.encode(["x"])).dtype == np.float32


def test_without_tables_the_start_says_which_settings_are_missing(minilm: Path) -> None:
    with pytest.raises(SettingError, match="KEYS_TABLE, USAGE_TABLE: not set"):
        Service.open(Settings(model_dir=str(minilm)))


def test_an_alias_of_the_deployments_own_is_served(minilm: Path, tables: Tables) -> None:
    config = Settings(model_dir=str(minilm), keys_table=tables.keys, usage_table=tables.usage)
    aliased = Settings(
        **config.__dict__ | {"model_aliases": "text-embedding-3-small=all-minilm-l6-v2, x = all-minilm-l6-v2"}
    )
    models = Service.open(aliased).models
    assert models.find("text-embedding-3-small") is models.find("x") is models.find("all-minilm-l6-v2")
    assert [row["id"] for row in models.listing()["data"]] == ["all-minilm-l6-v2", "text-embedding-3-small"]
    with pytest.raises(SettingError, match="MODEL_ALIASES=a=other"):
        Service.open(replace(config, model_aliases="a=other"))
