"""What a plain server that is told to end, or whose client has gone, does with work that has begun."""

import json
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from handler.engine.engine import DeadlineError, Engine
from handler.service import Service
from handler.settings import Settings
from tests.api.conftest import MODEL
from tests.conftest import HOUSE
from tests.stack.ministack import MiniStack, Tables
from tests.stack.outage import Fault, Outage
from tests.stack.server import PlainServer

RESET = struct.pack("ii", 1, 0)  # what close() does, as SO_LINGER says it
# Recording takes so long, which is within what an attempt may take.
SLOW = Fault("PutItem", 1, late_s=0.8)
# One short text, the only one that is measured before, may take so long that many would be refused by its pace.
PATIENT = {"REQUEST_SECONDS": "86400", "MAX_QUEUE_SECONDS": "86400"}


@pytest.fixture
def outage(ministack: MiniStack) -> Iterator[Outage]:
    with Outage(ministack.endpoint) as between:
        yield between


def post(server: PlainServer, key: str, *texts: str) -> httpx.Response:
    body = {"model": MODEL, "input": texts, "encoding_format": "base64"}
    return httpx.post(f"{server.url}/v1/embeddings", json=body, headers={"authorization": f"Bearer {key}"}, timeout=60)


def begin(server: PlainServer, key: str, *texts: str) -> socket.socket:
    """A request, sent."""
    where = urlsplit(server.url)
    connection = socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=60)
    body = json.dumps({"model": MODEL, "input": texts}).encode()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    return connection


def received(connection: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of the answer, up to the connection's end."""
    with connection:
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def assert_to_be_tried_again(connection: socket.socket) -> None:
    head, body = received(connection)
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 2" in head
    assert json.loads(body)["error"]["code"] == "server_is_overloaded"


def ended(server: PlainServer, within_s: float) -> float:
    """Seconds until its process has ended."""
    start = time.monotonic()
    while time.monotonic() - start < within_s:
        if os.waitid(os.P_PID, server.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return time.monotonic() - start
        time.sleep(0.02)
    raise AssertionError(f"it still runs after {within_s} s:\n{server.log}")


def reached(outage: Outage) -> None:
    """Once all that was begun has come."""
    deadline = time.monotonic() + 10
    while outage.left:
        assert time.monotonic() < deadline, outage.left
        time.sleep(0.01)


def test_what_has_begun_is_answered_and_recorded_and_the_process_ends(
    service_env: dict[str, str], tables: Tables, inference_key: str, tmp_path: Path
) -> None:
    with PlainServer(service_env | PATIENT, HOUSE, tmp_path / "log") as server:
        post(server, inference_key, "warm")
        before = len(tables.records())
        texts = ["word " * 200 + str(number) for number in range(40)]
        calls = [begin(server, inference_key, *texts, str(number)) for number in range(8)]
        httpx.get(f"{server.url}/health", timeout=60)  # it came later: they have been read
        assert len(select.select(calls, [], [], 0)[0]) < 8, "some are under way"
        os.kill(server.process.pid, signal.SIGTERM)
        took = ended(server, 8 + 3 + 5)
        answers = [received(call) for call in calls]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health")
    answered = sum(head.startswith(b"HTTP/1.1 200 OK") for head, _ in answers)
    assert len(tables.records()) - before == answered
    assert answered == 8 or took > 8, answers


def test_what_takes_longer_than_it_may_is_dropped_and_not_billed(
    service_env: dict[str, str], tables: Tables, inference_key: str, tmp_path: Path
) -> None:
    env = service_env | PATIENT | {"DRAIN_SECONDS": "1"}
    with PlainServer(env, HOUSE, tmp_path / "log") as server:
        post(server, inference_key, "warm")
        before = len(tables.records())
        connection = begin(server, inference_key, *("word " * 240 + str(number) for number in range(1200)))
        time.sleep(1)
        os.kill(server.process.pid, signal.SIGTERM)
        assert ended(server, 1 + 3 + 5) > 1
        assert_to_be_tried_again(connection)
    assert "Application shutdown complete" in server.log
    assert len(tables.records()) == before


def test_work_that_was_done_is_recorded_before_the_process_ends(
    service_env: dict[str, str], outage: Outage, tables: Tables, inference_key: str, tmp_path: Path
) -> None:
    env = service_env | {"AWS_ENDPOINT_URL": outage.url, "DRAIN_SECONDS": "0"}
    with PlainServer(env, HOUSE, tmp_path / "log") as server:
        post(server, inference_key, "warm")
        before = len(tables.records())
        outage.begin(SLOW)
        connection = begin(server, inference_key, "done, and not answered")
        reached(outage)
        os.kill(server.process.pid, signal.SIGTERM)
        assert ended(server, 5) < 3
        assert_to_be_tried_again(connection)
    assert len(tables.records()) == before + 1


def test_work_that_was_done_is_recorded_also_where_the_client_has_gone(
    service_env: dict[str, str], outage: Outage, tables: Tables, inference_key: str, tmp_path: Path
) -> None:
    env = service_env | {"AWS_ENDPOINT_URL": outage.url}
    with PlainServer(env, HOUSE, tmp_path / "log") as server:
        post(server, inference_key, "warm")
        before = len(tables.records())
        outage.begin(SLOW)
        connection = begin(server, inference_key, "done, and nobody there")
        reached(outage)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        connection.close()
        deadline = time.monotonic() + 10
        while len(tables.records()) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(tables.records()) == before + 1


def test_what_the_engine_has_is_dropped_when_the_service_closes(minilm: Path) -> None:
    """Whether its clients have been hung up on or not: else a process that was told to end goes on until it is done."""
    service = Service.open(Settings(model_dir=str(minilm), keys_table="keys", usage_table="usage"))
    service._engine = engine = Engine.load(service._layer, service.settings)
    minutes = [[101, *range(1000 + number, 1200 + number), 102] for number in range(20_000)]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(engine.encode, minutes)
        time.sleep(0.2)
        service.close(0)
        try:
            with pytest.raises(DeadlineError):
                running.result(10)
        finally:
            engine.close()
