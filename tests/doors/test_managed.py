"""The function on Managed Instances, under the emulator's mode for several calls at once."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ENTRY, HOUSE
from tests.doors.embedding import MODEL, post
from tests.stack import managed
from tests.stack.emulator import FunctionError, session
from tests.stack.managed import ManagedInstance
from tests.stack.ministack import Tables
from tests.stack.payload import to_event
from tests.stack.server import PlainServer

CALLERS = 16
RUN = re.compile(r"a run of (\d+) texts of (\d+) calls, (\d+) tokens")

pytestmark = pytest.mark.skipif(not managed.possible(), reason="only root makes the namespace that this mode needs")


@pytest.fixture(scope="module")
def instance(service_env: dict[str, str]) -> Iterator[ManagedInstance]:
    with ManagedInstance(ENTRY, service_env | {"LOG_LEVEL": "DEBUG"}, cwd=HOUSE, concurrency=CALLERS) as started:
        started.warm(to_event("GET", "/health", [], b"", "127.0.0.1"))
        yield started


def event(key: str, *texts: str) -> dict[str, Any]:
    body = json.dumps({"model": MODEL, "input": texts}).encode()
    return to_event("POST", "/v1/embeddings", [("authorization", f"Bearer {key}")], body, "127.0.0.1")


def ours(instance: ManagedInstance) -> list[dict[str, Any]]:
    """Lines that are ours, and not the emulator's."""
    return [json.loads(line) for line in instance.log.splitlines() if line.startswith('{"timestamp"')]


def test_sixteen_callers_share_one_process_one_model_and_its_runs(
    instance: ManagedInstance, plain: PlainServer, inference_key: str, tables: Tables
) -> None:
    texts = {number: [f"caller {number} sends text {each}" for each in range(30)] for number in range(CALLERS)}
    before = len(tables.records())
    with ThreadPoolExecutor(CALLERS) as callers:
        events = {number: event(inference_key, *texts[number]) for number in texts}
        ids = {number: events[number]["requestContext"]["requestId"] for number in texts}
        calls = {n: callers.submit(instance.invoke, events[n], request_id=ids[n]) for n in texts}
        answers = {number: json.loads(call.result()["body"]) for number, call in calls.items()}

    commands = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in sorted(session(instance.pid))]
    assert [command[:3] for command in commands[1:]] == [[b"python", b"-m", b"handler.runtime"]], "beside RIE"
    lines = ours(instance)
    assert sum(line["message"].startswith(f"loaded {MODEL}") for line in lines) == 1
    runs = [tuple(map(int, found.groups())) for line in lines if (found := RUN.match(line["message"]))]
    assert max(calls for _, calls, _ in runs) > 1, "texts of several callers in one run"
    assert sum(number for number, _, _ in runs) >= CALLERS * 30
    assert all(tokens <= 256 for _, _, tokens in runs)
    assert len(tables.records()) == before + CALLERS
    for number in (0, CALLERS - 1):
        expected = post(plain, inference_key, input=texts[number]).json()
        assert answers[number]["data"] == expected["data"], "the same numbers as of a plain server"
    told = {
        line["message"].split("request req_")[1][:32]: line["requestId"]
        for line in lines
        if "'/v1/embeddings' 200" in line["message"]
    }
    assert told == {each.replace("-", ""): each for each in ids.values()}, "each line has its own call's id"


def test_a_call_that_fails_fails_alone(instance: ManagedInstance, inference_key: str) -> None:
    with pytest.raises(FunctionError) as caught:
        instance.invoke({"Records": [{"eventSource": "aws:s3"}]})
    assert caught.value.error_type == "UnsupportedEventError"
    assert instance.invoke(event(inference_key, "text"))["statusCode"] == 200


def test_the_queue_must_be_shorter_than_lambdas(instance: ManagedInstance) -> None:
    assert any("Lambda's own 429 comes before our 503" in line["message"] for line in ours(instance))
