"""How long the plain server keeps a connection, over its own protocol class; the limits are short here."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from handler.api import protocol
from tests.stack.process import free_port

HEAD_S, IDLE_S, HALF_CLOSED_S = 0.4, 2.0, 0.4
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers a request with the length of its body, and one for `/refused` before it has come. The
    head of that for `/later`, and the body of that for `/long`, come after what a half-closed client has."""
    length, more = 0, scope["path"] != "/refused"
    while more:
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    body = str(length).encode()
    await asyncio.sleep(HALF_CLOSED_S * 2 if scope["path"] == "/later" else 0)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await asyncio.sleep(HALF_CLOSED_S * 2 if scope["path"] == "/long" else 0)
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(protocol, "_HEAD_S", HEAD_S)
    monkeypatch.setattr(protocol, "_HALF_CLOSED_S", HALF_CLOSED_S)
    number = free_port()
    config = uvicorn.Config(
        answer,
        port=number,
        http=protocol.Http11,
        lifespan="off",
        log_level="error",
        timeout_keep_alive=IDLE_S,  # type: ignore[arg-type]
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield number
    server.should_exit = True
    thread.join()


@pytest.fixture
def connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as opened:
        yield opened


def answered(connection: socket.socket) -> bytes:
    """A whole answer, whose body is a digit."""
    received = b""
    while not received[:-1].endswith(b"\r\n\r\n"):
        more = connection.recv(1000)
        assert more, received
        received += more
    assert received.startswith(b"HTTP/1.1 200 OK")
    return received[-1:]


def test_two_requests_go_over_one_connection_with_a_pause_between(connection: socket.socket) -> None:
    for _ in range(2):
        connection.sendall(GET)
        assert answered(connection) == b"0"
        time.sleep(HEAD_S * 1.5)


@pytest.mark.parametrize("sent", [b"", GET[:20]], ids=["nothing", "a part"])
def test_a_connection_without_a_head_is_closed(port: int, sent: bytes) -> None:
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=4) as connection:
        connection.sendall(sent)
        assert connection.recv(1000) == b""
    assert time.monotonic() - start > HEAD_S * 0.9


def test_a_head_that_drips_is_closed_too_on_a_connection_that_has_been_used(connection: socket.socket) -> None:
    connection.sendall(GET)
    answered(connection)
    with contextlib.suppress(OSError):
        for byte in GET[:20] + bytes(40):
            connection.sendall(bytes([byte]))
            time.sleep(HEAD_S / 5)
        raise AssertionError("it is read for as long as it lasts")


def test_a_body_may_take_longer_than_a_head(connection: socket.socket) -> None:
    connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n")
    for byte in b"slow":
        time.sleep(HEAD_S / 2)
        connection.sendall(bytes([byte]))
    assert answered(connection) == b"4"


@pytest.mark.parametrize("sent", [b"s", b"slow"], ids=["a part", "the whole"])
def test_a_connection_is_closed_too_if_of_a_body_something_came_after_the_answer(
    connection: socket.socket, sent: bytes
) -> None:
    connection.sendall(b"POST /refused HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n")
    assert answered(connection) == b"0"
    connection.sendall(sent)
    start = time.monotonic()
    assert connection.recv(1000) == b""
    assert time.monotonic() - start > IDLE_S * 0.9


def test_a_connection_is_of_use_after_a_body_that_came_after_the_answer(connection: socket.socket) -> None:
    connection.sendall(b"POST /refused HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n")
    assert answered(connection) == b"0"
    connection.sendall(b"slow")
    time.sleep(HEAD_S)
    connection.sendall(GET)
    assert answered(connection) == b"0"


def test_a_client_that_sends_no_more_may_take_as_long_as_it_does_to_read_an_answer(connection: socket.socket) -> None:
    connection.sendall(GET.replace(b"/", b"/long", 1))
    connection.shutdown(socket.SHUT_WR)
    assert answered(connection) == b"0"
    assert connection.recv(1000) == b""


def test_but_not_as_long_as_it_does_to_begin_one(connection: socket.socket) -> None:
    connection.sendall(GET.replace(b"/", b"/later", 1))
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1000) == b""
