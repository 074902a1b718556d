"""How much memory the bodies of requests may have together, on the plain server. Lambda brings one at a time."""

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from handler.api.bodies import Bodies
from handler.contract.errors import ApiError
from handler.settings import Settings
from tests.api.conftest import MODEL, envelope
from tests.conftest import HOUSE
from tests.stack.server import PlainServer

MIB = 1 << 20
LARGE = MIB  # of a body, and of all of them, at the server that is `tight`
PATIENCE_S, REQUEST_S = 1, 4  # of its settings


@pytest.fixture(scope="module")
def tight(service_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainServer]:
    """Room for one body of the largest size, although MAX_BODIES_BYTES says less."""
    limits = {"MAX_BODY_BYTES": LARGE, "MAX_BODIES_BYTES": 1}
    times = {"MAX_QUEUE_SECONDS": PATIENCE_S, "REQUEST_SECONDS": REQUEST_S}
    env = service_env | {name: str(value) for name, value in (limits | times).items()}
    with PlainServer(env, HOUSE, tmp_path_factory.mktemp("tight") / "log") as server:
        yield server


def padded(size: int) -> bytes:
    """The body of a right request, so many bytes long."""
    body = json.dumps({"model": MODEL, "input": "the quick brown fox", "user": ""}).encode()
    return body.replace(b'""', b'"%b"' % (b"x" * (size - len(body))))


def post(server: PlainServer, key: str, body: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/embeddings", content=body, headers=headers, timeout=120)


def begin(server: PlainServer, key: str, sent: int, framing: str) -> socket.socket:
    """A request of which no more comes than so many bytes of its body; `framing`: the header that tells its length."""
    where = urlsplit(server.url)
    connection = socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=30)
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{framing}\r\n\r\n"
    part = padded(LARGE)[:sent]
    connection.sendall(head.encode() + (part if "chunked" not in framing else b"%x\r\n%b\r\n" % (sent, part)))
    return connection


def overloaded(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and envelope(answer)["code"] == "server_is_overloaded"


def wait_until_full(server: PlainServer, key: str) -> None:
    """Although no more than half of a body has come."""
    deadline = time.monotonic() + 20
    while not overloaded(post(server, key, padded(LARGE // 2))):
        assert time.monotonic() < deadline


def test_many_large_bodies_are_all_answered_in_the_memory_of_a_few(
    service_env: dict[str, str], inference_key: str, tmp_path: Path
) -> None:
    """Forty of 8 MiB, in room for two. One takes some five times its size while it is read."""
    env = service_env | {"MAX_BODIES_BYTES": str(16 * MIB), "MAX_BODY_BYTES": str(8 * MIB), "MAX_QUEUE_SECONDS": "100"}
    body = padded(8 * MIB)
    with PlainServer(env, HOUSE, tmp_path / "log") as server, ThreadPoolExecutor(40) as callers:
        assert post(server, inference_key, padded(1000)).status_code == 200
        before = _peak(server)
        answers = list(callers.map(lambda _: post(server, inference_key, body), range(40)))
        grown = _peak(server) - before
    assert {answer.status_code for answer in answers} == {200}
    assert grown < 160 * MIB


@pytest.mark.parametrize("framing", [f"content-length: {LARGE}", "transfer-encoding: chunked"])
def test_what_finds_no_room_is_503_and_small_bodies_need_none(
    tight: PlainServer, inference_key: str, framing: str
) -> None:
    with closing(begin(tight, inference_key, LARGE // 2, framing)):
        wait_until_full(tight, inference_key)
        start = time.monotonic()
        refused = post(tight, inference_key, padded(LARGE))
        assert overloaded(refused)
        assert time.monotonic() - start >= PATIENCE_S
        assert (refused.headers["retry-after"], refused.headers["retry-after-ms"]) == ("2", "2000")
        assert post(tight, inference_key, padded(60_000)).status_code == 200
        assert post(tight, inference_key, iter([padded(60_000)])).status_code == 200
    assert _soon(tight, inference_key), "whose room it was has gone"


def test_a_body_that_does_not_come_gives_its_room_back(tight: PlainServer, inference_key: str) -> None:
    framing = f"content-length: {LARGE}"
    with closing(begin(tight, inference_key, LARGE // 2, framing)) as stalled:
        wait_until_full(tight, inference_key)
        assert stalled.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert _soon(tight, inference_key)


def test_a_length_that_is_overridden_takes_the_room_of_the_largest(tight: PlainServer, inference_key: str) -> None:
    """Of both headers it is the chunks that count (RFC 9112, 6.3)."""
    framing = "content-length: 70000\r\ntransfer-encoding: chunked"
    with closing(begin(tight, inference_key, LARGE // 2, framing)):
        wait_until_full(tight, inference_key)


def arriving(size: int) -> Request:
    """A request whose body of so many bytes is there at once."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"x" * size}

    return Request({"type": "http", "headers": [(b"content-length", str(size).encode())]}, receive)


def test_room_is_given_in_the_order_in_which_it_was_asked_for() -> None:
    """Of three bodies the first leaves room for the third, which waits behind the second all the same."""
    bodies = Bodies(Settings(max_body_bytes=LARGE, max_bodies_bytes=LARGE))
    sizes, entered = [LARGE // 2, LARGE, 70_000], []
    first_may_go = anyio.Event()

    async def hold(size: int) -> None:
        async with bodies.read(arriving(size), 10) as body:
            entered.append(len(body))
            if size == sizes[0]:
                await first_may_go.wait()

    async def all_three() -> None:
        async with anyio.create_task_group() as group:
            for size in sizes:
                group.start_soon(hold, size)
                await anyio.wait_all_tasks_blocked()
            assert entered == sizes[:1]
            first_may_go.set()
        assert entered == sizes

    anyio.run(all_three)


def test_where_nobody_may_wait_room_that_is_there_is_given() -> None:
    bodies = Bodies(Settings(max_body_bytes=LARGE, max_bodies_bytes=LARGE, max_queue_seconds=0))

    async def one_inside_the_other() -> None:
        async with bodies.read(arriving(LARGE), 10) as body:
            assert len(body) == LARGE
            with pytest.raises(ApiError, match="503 server_is_overloaded"):
                async with bodies.read(arriving(70_000), 10):
                    pass

    anyio.run(one_inside_the_other)


def test_all_room_comes_back_from_those_that_waited_and_those_that_left(tight: PlainServer, inference_key: str) -> None:
    sizes = [LARGE, 100_000, LARGE // 2, 70_000, LARGE, 200_000] * 5
    with ThreadPoolExecutor(len(sizes)) as callers, ExitStack() as left:
        found = [callers.submit(post, tight, inference_key, padded(size)) for size in sizes]
        for each in found:
            each.result()
        for _ in range(3):  # who leaves while others wait
            left.enter_context(closing(begin(tight, inference_key, LARGE // 4, f"content-length: {LARGE}")))
    assert _soon(tight, inference_key)
    assert "Traceback" not in tight.log


def _soon(server: PlainServer, key: str) -> bool:
    """Whether the largest body finds room before long."""
    deadline = time.monotonic() + 10
    while (answer := post(server, key, padded(LARGE))).status_code != 200:
        assert overloaded(answer)
        if time.monotonic() > deadline:
            return False
    return True


def _peak(server: PlainServer) -> int:
    """Bytes that the server has had in memory at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
