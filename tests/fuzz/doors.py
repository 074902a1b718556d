"""Both doors, asked for one request after the other."""

import contextlib
import gzip
import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from tests.fuzz.case import Case
from tests.stack.frontdoor import FrontDoor
from tests.stack.payload import to_event, to_response
from tests.stack.server import PlainServer

_PATIENCE_S = 60


@dataclass(frozen=True)
class Reply:
    """`body`: unpacked where it came in gzip; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Door(Protocol):
    @property
    def log(self) -> str:
        """What the service has written of it all."""

    def ask(self, case: Case) -> Reply: ...


def _reply(status: int, pairs: list[tuple[str, str]], body: bytes) -> Reply:
    headers = {name.lower(): value for name, value in pairs}
    return Reply(status, headers, gzip.decompress(body) if headers.get("content-encoding") == "gzip" and body else body)


class Plain:
    """The plain server, over one connection for as long as that lives: bytes go out as the case has them."""

    def __init__(self, server: PlainServer, keys: Mapping[str, str]) -> None:
        self._server, where = server, urlsplit(server.url)
        self._address, self._keys = (str(where.hostname), int(where.port or 0)), keys
        self._connection: socket.socket | None = None

    @property
    def log(self) -> str:
        return self._server.log

    def ask(self, case: Case) -> Reply:
        sent, kept = case.wire(self._keys), self._connection is not None
        try:
            return self._exchange(case.method, sent)
        except ConnectionError:
            self.close()
            if not kept:
                raise
            return self._exchange(case.method, sent)  # the server had closed it meanwhile

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, method: str, sent: bytes) -> Reply:
        if self._connection is None:
            self._connection = socket.create_connection(self._address, timeout=_PATIENCE_S)
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(BrokenPipeError):  # answered, and closed, before the body was whole
            self._connection.sendall(sent)
        with contextlib.closing(http.client.HTTPResponse(self._connection, method=method)) as answer:
            answer.begin()
            body = answer.read()
            if answer.will_close:
                self.close()
            return _reply(answer.status, answer.getheaders(), body)


class Function:
    """The function itself, as its URL calls it."""

    def __init__(self, function: FrontDoor, keys: Mapping[str, str]) -> None:
        self._function, self._keys = function, keys

    @property
    def log(self) -> str:
        return self._function.log

    def ask(self, case: Case) -> Reply:
        pairs = [(name, value.strip(" \t")) for name, value in case.pairs(self._keys)]
        event = to_event(case.method, case.target, pairs, case.body.raw, "127.0.0.1")
        status, headers, body = to_response(self._function.invoke(event))
        return _reply(status, headers, b"" if case.method == "HEAD" else body)  # which its URL takes off
