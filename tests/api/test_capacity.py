"""What is refused because there is no time for it. The pace is set by hand: no test can wait for a busy machine."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from handler.api import embeddings
from handler.api.app import create_app
from handler.engine.engine import DeadlineError, Engine
from handler.engine.pace import Pace
from handler.service import Service
from handler.settings import Settings
from tests.conftest import ENTRY, HOUSE
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import Tables

# A token each, and no two alike: what is there twice is encoded once.
BODY = {
    "model": "all-minilm-l6-v2",
    "input": ["red", "green", "blue", "white", "black", "one", "two", "three", "four", "five"],
}


@pytest.fixture
def service(minilm: Path, tables: Tables) -> Service:
    config = Settings(
        model_dir=str(minilm),
        keys_table=tables.keys,
        usage_table=tables.usage,
        request_seconds=20,
        max_queue_seconds=15,
    )
    service = Service.open(config)
    service.load()
    return service


@pytest.fixture
def http(service: Service, inference_key: str) -> Iterator[TestClient]:
    headers = {"authorization": f"Bearer {inference_key}"}
    with TestClient(create_app(service), headers=headers, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def pace(service: Service) -> Pace:
    assert service._engine is not None
    return service._engine.pace


def failure(answer: Any) -> tuple[int, str | None, str | None]:
    return answer.status_code, answer.json()["error"]["code"], answer.headers.get("x-should-retry")


def test_what_cannot_be_done_in_time_is_504_before_it_is_begun(
    http: TestClient, pace: Pace, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(tables.records())
    pace.measured(100, 100)  # a token a second
    monkeypatch.setattr(Engine, "encode", None)  # not called
    answer = http.post("/v1/embeddings", json=BODY)
    assert failure(answer) == (504, "deadline_exceeded", "false")
    assert answer.json()["error"] == {
        "message": "10 tokens could not be embedded within 20 seconds. Send fewer inputs or use a batch.",
        "type": "server_error",
        "param": None,
        "code": "deadline_exceeded",
    }
    assert len(tables.records()) == before


def test_what_would_have_to_wait_too_long_is_503_and_may_be_tried_again(
    http: TestClient, pace: Pace, service: Service
) -> None:
    cost = pace.cost([3] * 10)
    pace.measured(5 * cost, 10)
    for _ in range(9):  # eighteen seconds of other requests as large as this one
        assert pace.take(cost, 60) is None
    answer = http.post("/v1/embeddings", json=BODY)
    assert failure(answer) == (503, "server_is_overloaded", None)
    assert answer.json()["error"]["message"] == "The engine is currently overloaded, please try again later."
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("10", "10000")
    pace.give_back(cost)
    pace.give_back(cost)
    assert http.post("/v1/embeddings", json=BODY).status_code == 200


def test_a_wait_that_leaves_no_time_for_the_work_is_503_too(http: TestClient, pace: Pace) -> None:
    cost = pace.cost([3] * 10)
    pace.measured(cost, 11)  # of the request's 20 seconds, and so does one before it
    pace.take(cost, 60)
    assert failure(http.post("/v1/embeddings", json=BODY)) == (503, "server_is_overloaded", None)


def test_a_full_queue_refuses_at_once_with_a_short_pause(
    service: Service, inference_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service.open(replace(service.settings, max_queue_requests=1))
    service.load()
    encode, begun, free = Engine.encode, threading.Event(), threading.Event()

    def held(self: Engine, *arguments: Any) -> Any:
        begun.set()
        free.wait(60)
        return encode(self, *arguments)

    monkeypatch.setattr(Engine, "encode", held)
    headers = {"authorization": f"Bearer {inference_key}"}
    with TestClient(create_app(service), headers=headers) as http, ThreadPoolExecutor(1) as other:
        first = other.submit(http.post, "/v1/embeddings", json=BODY)
        begun.wait(10)
        answer = http.post("/v1/embeddings", json=BODY)
        assert failure(answer) == (503, "server_is_overloaded", None)
        assert answer.headers["retry-after"] == "1"
        assert not first.done()
        free.set()
        assert first.result().status_code == 200
        assert http.post("/v1/embeddings", json=BODY).status_code == 200


def test_a_place_in_the_queue_is_given_back_whatever_becomes_of_the_request(
    http: TestClient, pace: Pace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Engine, *_: Any) -> Any:
        assert pace._taken
        raise RuntimeError

    assert http.post("/v1/embeddings", json=BODY).status_code == 200
    monkeypatch.setattr(Engine, "encode", broken)
    assert http.post("/v1/embeddings", json=BODY).status_code == 500
    assert pace._taken == []


def test_what_was_too_slow_may_be_tried_again_once_the_machine_is_idle(
    http: TestClient, pace: Pace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused is not measured: nothing else would ever show that the machine is fast again."""
    pace.measured(100, 100)
    assert failure(http.post("/v1/embeddings", json=BODY)) == (504, "deadline_exceeded", "false")
    clock = pace._clock
    monkeypatch.setattr(pace, "_clock", lambda: clock() + 11)
    assert http.post("/v1/embeddings", json=BODY).status_code == 200


def test_a_deadline_that_passed_while_a_request_waited_to_be_read_is_503(
    http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waited(*arguments: Any) -> Any:
        return replace(door(*arguments), deadline=time.monotonic())

    door = embeddings._door
    monkeypatch.setattr(embeddings, "_door", waited)
    assert failure(http.post("/v1/embeddings", json=BODY)) == (503, "server_is_overloaded", None)


@pytest.mark.parametrize(("alone", "expected"), [(5, 503), (60, 504)])
def test_at_the_deadline_it_counts_whose_the_time_was(
    http: TestClient, pace: Pace, tables: Tables, monkeypatch: pytest.MonkeyPatch, alone: int, expected: int
) -> None:
    """503 where the request alone would have been in time, which another try may be; 504 where it would not."""
    before = len(tables.records())

    def late(self: Engine, ids: Any, deadline: float, gone: threading.Event) -> Any:
        assert 10 < deadline - time.monotonic() < 20
        cost = self.pace.cost(map(len, ids))
        self.pace.measured(cost, alone)
        raise DeadlineError

    monkeypatch.setattr(Engine, "encode", late)
    assert http.post("/v1/embeddings", json=BODY).status_code == expected
    assert len(tables.records()) == before


def test_the_deadline_comes_before_limits_and_capacity(
    service: Service, tables: Tables, pace: Pace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from handler.contract.limits import Limits

    key = tables.create_key("acct_slow", "inference", Limits(requests_per_minute=1))
    service = Service.open(replace(service.settings, limits_table=tables.limits))
    service.load()
    assert service._engine is not None
    service._engine.pace.measured(100, 100)
    service._engine.pace.take(1e6, 0)
    with TestClient(create_app(service), headers={"authorization": f"Bearer {key}"}) as http:
        answer = http.post("/v1/embeddings", json=BODY)
        assert failure(answer) == (504, "deadline_exceeded", "false")
        assert "x-ratelimit-limit-requests" not in answer.headers, "nothing was counted"
        busy = service._engine.pace = Pace(384)
        busy.measured(1000, 10)
        for _ in range(9):
            busy.take(200, 60)
        answer = http.post("/v1/embeddings", json=BODY)
        assert failure(answer) == (503, "server_is_overloaded", None)
        assert answer.headers["x-ratelimit-remaining-requests"] == "0", "which it was counted against before"


def test_lambda_is_answered_ahead_of_its_own_deadline(
    service_env: dict[str, str], seeded: Path, inference_key: str, tables: Tables
) -> None:
    """A hundred and twenty texts of 2,000 tokens take two layers of bge-m3 a minute; the function has thirteen
    seconds, of which its start takes some, and keeps a fifth of them."""
    before = len(tables.records())
    env = service_env | {"MODEL_DIR": str(seeded)}
    headers = {"authorization": f"Bearer {inference_key}"}
    with FrontDoor(ENTRY, env, cwd=HOUSE, size=1, timeout_s=13) as door:

        def ask(*texts: str) -> httpx.Response:
            body = json.dumps({"model": "bge-m3-seeded", "input": texts})
            return httpx.post(f"{door.url}/v1/embeddings", content=body, headers=headers, timeout=60)

        # The emulator counts the start in the first call's time.
        assert httpx.get(f"{door.url}/health", timeout=60).status_code == 200
        took = []
        for _ in range(2):
            start = time.monotonic()
            answer = ask(*("the " * n + "a " * (2000 - n) for n in range(120)))
            took.append(time.monotonic() - start)
            assert failure(answer) == (504, "deadline_exceeded", "false"), answer.text
            told = answer.json()["error"]["message"]
            assert told.startswith("240000 tokens could not be embedded within 10 seconds.")
        assert took[0] > 8, "nothing was known, and the run was stopped"
        assert took[1] < took[0] / 2, "from the first it is known how long it would take"
        assert ask("text").status_code == 200
    assert len(tables.records()) == before + 1


def test_lambda_is_answered_ahead_of_its_deadline_while_text_is_still_read(
    service_env: dict[str, str], inference_key: str, tables: Tables
) -> None:
    """Of an id of cl100k that is 114 pieces, 300,000 are 33 million tokens: half a minute of the tokenizer alone."""
    before = len(tables.records())
    body = {"model": "all-minilm-l6-v2", "input": [[90280] * 8192] * 36, "encoding_format": "base64"}
    headers = {"authorization": f"Bearer {inference_key}"}
    with FrontDoor(ENTRY, service_env, cwd=HOUSE, size=1, timeout_s=8) as door:
        assert httpx.get(f"{door.url}/health", timeout=60).status_code == 200
        answer = httpx.post(f"{door.url}/v1/embeddings", json=body, headers=headers, timeout=60)
        assert failure(answer) == (504, "deadline_exceeded", "false"), answer.text
        tokens, rest = answer.json()["error"]["message"].split(" ", 1)
        assert rest == "tokens could not be embedded within 6 seconds. Send fewer inputs or use a batch."
        assert 900_000 < int(tokens) < 33_000_000, "those that were counted by then"
    assert len(tables.records()) == before
