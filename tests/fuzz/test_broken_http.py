"""Requests whose bytes were damaged on the way: whatever comes back for them is HTTP, in the envelope, and no 5xx."""

import http.client
import io
import re
import select
import socket
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import urlsplit

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.fuzz.case import Case
from tests.fuzz.doors import Reply
from tests.fuzz.inspection import envelope
from tests.fuzz.requests import cases
from tests.fuzz.test_garbage import EXPLORED, shown
from tests.stack.server import PlainServer

ORDINARY = 300
UNDECIDED_S = 0.02  # a server that has said nothing by then waits for the rest of the request

_INTERIM = re.compile(rb"HTTP/1\.1 100 [^\r\n]*\r\n\r\n")  # to `expect: 100-continue`, ahead of an answer, or of none

# What a parser of HTTP may stumble over, beside any bytes at all.
_SPLINTERS = st.one_of(
    st.binary(max_size=4),
    st.sampled_from(
        [
            *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b":", b"\xff", b"HTTP/1.0", b" HTTP/9.9", b"?"),
            *(b"\r\ncontent-length: 7", b"\r\ncontent-length: -1", b"\r\ncontent-length: 1, 2", b"\r\nhost: y"),
            *(b"\r\ntransfer-encoding: chunked", b"\r\ntransfer-encoding: gzip", b"\r\n folded: x", b"\r\n: x"),
            *(b"\r\nexpect: 100-continue", b"\r\nconnection: upgrade\r\nupgrade: h2c", b"\r\nconnection: close"),
        ]
    ),
)
_DAMAGE = st.tuples(st.integers(0, 300), st.integers(0, 3), _SPLINTERS)


@st.composite
def _broken(draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """The bytes of a request, some of them replaced: half of the time at the ends of its lines."""
    case: Case = draw(cases().filter(lambda case: case.method != "HEAD"))  # the length of its answer would mislead
    sent = case.wire({})
    for at, replaced, by in draw(st.lists(_DAMAGE, min_size=1, max_size=3)):
        ends = [place for place in range(len(sent)) if sent.startswith(b"\r\n", place)]
        place = ends[at % len(ends)] if ends and draw(st.booleans()) else at % len(sent)
        sent = sent[:place] + by + sent[place + replaced :]
    return sent


def test_a_request_that_is_no_http_any_more_gets_nothing_or_the_envelope(
    plain: PlainServer, inference_key: str
) -> None:
    faults, credential = plain.log.count("Traceback"), f"Bearer {inference_key}".encode()

    def ask(sent: bytes) -> None:
        note(shown(sent))
        for reply in _replies(_exchange(plain, sent.replace(b"Bearer inference", credential))):
            assert reply.status < 500
            if reply.status >= 400:
                envelope(reply)

    chosen = settings(
        max_examples=EXPLORED // 10 or ORDINARY,
        derandomize=not EXPLORED,
        deadline=None,
        suppress_health_check=[*HealthCheck],
    )
    chosen(given(_broken())(ask))()

    assert plain.whole_log.count("Traceback") == faults


def _exchange(server: PlainServer, sent: bytes) -> bytes:
    """All that comes back until the server closes, which it is asked to once it is clear that nothing else comes."""
    where = urlsplit(server.url)
    with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(sent)
        received = b""
        while select.select([connection], [], [], UNDECIDED_S)[0]:
            if not (part := connection.recv(1 << 16)):
                return received
            received += part
        connection.shutdown(socket.SHUT_WR)
        return received + b"".join(iter(lambda: connection.recv(1 << 16), b""))


class _Received:
    """What http.client reads answers from."""

    def __init__(self, received: bytes) -> None:
        self._file = _Kept(received)

    def makefile(self, *_: object) -> io.BytesIO:
        return self._file


class _Kept(io.BytesIO):
    def close(self) -> None:
        """Not between two answers."""


def _replies(received: bytes) -> list[Reply]:
    """The answers that what was received is made of."""
    received = _INTERIM.sub(b"", received)
    source, replies = _Received(received), []
    while source.makefile().tell() < len(received):
        answer = http.client.HTTPResponse(cast(socket.socket, source))
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        replies.append(Reply(answer.status, headers, answer.read()))
    return replies
