"""What becomes of work for a client that sends no more, or has gone, on the plain server."""

import json
import random
import socket
import struct
import time
from urllib.parse import urlsplit

import pytest

from tests.api.conftest import MODEL
from tests.stack.ministack import Tables
from tests.stack.server import PlainServer

RESET, ORDERLY = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)  # what close() does, as SO_LINGER says it


def begin(server: PlainServer, key: str, texts: list[str] | list[list[int]]) -> socket.socket:
    """A whole request, sent."""
    where = urlsplit(server.url)
    connection = socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=60)
    body = json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    connection.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    return connection


def test_a_client_that_sends_no_more_gets_its_answer_and_then_the_end(plain: PlainServer, inference_key: str) -> None:
    with begin(plain, inference_key, ["word " * 200 + str(number) for number in range(20)]) as connection:
        connection.shutdown(socket.SHUT_WR)
        start = time.monotonic()
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert received.endswith(b"}")
    assert time.monotonic() - start < 30


HEAD = b"GET /health HTTP/1.1\r\nhost: x\r\n"
POST = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nauthorization: Bearer KEY\r\ncontent-length: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("more", "answers"),
    [
        (b"GET /hea", 1),
        (HEAD, 1),
        (POST + b"{", 1),  # /health would not wait for a body
        (HEAD + b"\r\n", 2),
        (HEAD + b"\r\n" + HEAD, 2),
        (HEAD + b"\r\n" + HEAD + b"\r\n", 3),
    ],
    ids=["part of a head", "a head", "part of a body", "one more", "one more and a head", "two more"],
)
def test_of_what_it_had_sent_behind_all_that_is_whole_is_answered_and_then_the_connection_ends(
    plain: PlainServer, inference_key: str, more: bytes, answers: int
) -> None:
    with begin(plain, inference_key, ["word " * 50]) as connection:
        connection.sendall(more.replace(b"KEY", inference_key.encode()))
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(20)  # an idle connection has 75 seconds
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.count(b"HTTP/1.1 200 OK") == answers
    assert received.count(b"HTTP/1.1 ") == answers


@pytest.mark.parametrize(("lingers", "within_s"), [(RESET, 30), (ORDERLY, 60)], ids=["reset", "orderly"])
def test_work_for_a_client_that_has_gone_ends_and_is_not_billed(
    plain: PlainServer, tables: Tables, inference_key: str, lingers: bytes, within_s: int
) -> None:
    """One that closes in order looks as if it waited for its answer: it is given ten seconds."""
    before, ended = len(tables.records()), plain.log.count("client_disconnected")
    draw = random.Random(
        1
    )  # ids at random have more pieces than any text of 300,000 tokens, which a few seconds may do
    connection = begin(plain, inference_key, [draw.choices(range(100_000), k=8192) for _ in range(36)])
    time.sleep(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingers)
    connection.close()
    deadline = time.monotonic() + within_s
    while plain.log.count("client_disconnected") == ended and time.monotonic() < deadline:
        time.sleep(0.1)
    line = [line for line in plain.log.splitlines() if "client_disconnected" in line][-1]
    assert plain.log.count("client_disconnected") == ended + 1
    assert "tokens -" in line
    assert len(tables.records()) == before
