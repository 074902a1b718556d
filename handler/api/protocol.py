"""HTTP/1.1 of the plain server, uvicorn's `--http`: what is no HTTP gets the envelope too, and a whole URL in a path's
place is read as its path."""

import re
import sys
import uuid
from asyncio import TimerHandle, Transport
from typing import Any
from urllib.parse import unquote

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from handler.api.paths import SERVER
from handler.contract import errors
from handler.contract.body import JSON

_HALF_CLOSED_S = 10.0  # to begin the answer to a client that sends no more: many of them have gone altogether

_HEAD_S = 30.0  # for a request's head: of a connection's first since it opened, of others since their first byte

_URL = re.compile(rb"https?://([^/]+)(.*)", re.IGNORECASE | re.DOTALL)


class Http11(H11Protocol):
    """uvicorn's protocol, but for the answer to a head that h11 refuses, for one that does not come, and for targets
    that are URLs."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.app = PathForm(self.app)
        self._head: TimerHandle | None = None
        self._has_ended = False  # what the client sends

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head is not None:
            self._head.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # which asyncio takes as well as None
        """A client that sends no more may still wait for its answer (RFC 9112, 9.6); one that has hung up looks alike,
        so that it has only some seconds for what is not made yet."""
        self._has_ended = True
        return self._answers_the_rest()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._has_ended and not self.transport.is_closing() and not self._answers_the_rest():
            self.transport.close()  # there is the beginning of a request at most

    def _answers_the_rest(self) -> bool:
        """Of what has been sent whole: whether a request is under way, or has just begun to be."""
        under_way = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        if under_way:
            self.cycle.keep_alive = bool(self.conn.trailing_data[0])  # for requests that it has sent already
            self.loop.call_later(_HALF_CLOSED_S, self._give_up, self.cycle)
        return under_way

    def _give_up(self, cycle: RequestResponseCycle) -> None:
        if not cycle.response_started:  # one that is being read has a reader
            cycle.disconnected = True
            cycle.message_event.set()
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """An empty line ahead of a request is passed over (RFC 9112, 2.2)."""
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            data = data.removeprefix(b"\r\n")
        if data:
            super().data_received(data)
            self._expect_head()
            self._keep_alive_anew()

    def _keep_alive_anew(self) -> None:
        """uvicorn ends its limit of an idle connection at any byte; where that is of a body whose request has been
        answered already, no answer is to come that would begin it anew."""
        answered = self.cycle is not None and self.cycle.response_complete and not self.transport.is_closing()
        if answered and self._head is None and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _expect_head(self) -> None:
        """Close the connection if a head that is awaited does not come in time; between two, uvicorn's own limit of an
        idle connection holds."""
        awaited = self.conn.their_state is h11.IDLE and (self.cycle is None or bool(self.conn.trailing_data[0]))
        if awaited and self._head is None:
            self._head = self.loop.call_later(_HEAD_S, self.transport.close)
        elif self._head is not None and not awaited:
            self._head.cancel()
            self._head = None

    def _should_upgrade(self) -> bool:
        """To no other protocol: an offer of one may be ignored (RFC 9110, 7.8), and needs no line in the log."""
        return False

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Called where h11 has raised, which says why: 431 for a head of more than 64 KiB, else 400."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer has begun: there is no room for another
            return
        too_large = getattr(sys.exception(), "error_status_hint", 400) == errors.HEAD_TOO_LARGE.status
        error = (errors.HEAD_TOO_LARGE if too_large else errors.BROKEN_HTTP).error()
        body = error.body()
        headers = [
            ("content-type", JSON),
            ("content-length", str(len(body))),
            ("connection", "close"),
            ("x-request-id", f"req_{uuid.uuid4().hex}"),
        ]
        for event in (h11.Response(status_code=error.status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True  # the request had begun: what is made of it has nowhere to go any more
        self.transport.close()


class PathForm:
    """Middleware. A request to a proxy names a whole URL, and so may any other (RFC 9112, 3.2.2): then its host is the
    URL's, and without a path it is for `/`, or with OPTIONS for `*`, the server itself (3.2.4)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (url := _URL.fullmatch(scope["raw_path"])):
            host, raw = url[1], url[2] or (SERVER.encode() if scope["method"] == "OPTIONS" else b"/")
            headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
            path = unquote(raw.decode("ascii"))
            scope = {**scope, "path": path, "raw_path": raw, "headers": [(b"host", host), *headers]}
        await self.app(scope, receive, send)
