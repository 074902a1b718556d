"""What stands around every route: request id, headers, one log line, an envelope for whatever goes wrong, and the
methods that no route has to know, HEAD and OPTIONS."""

import asyncio
import contextlib
import logging
import re
import time
import traceback
import uuid
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handler.api.cors import Cors
from handler.api.paths import Paths
from handler.contract import errors
from handler.contract.body import JSON
from handler.contract.errors import ApiError
from handler.reach import RETRY_S

log = logging.getLogger(__name__)

_SHOWN = 256  # characters of a path in the log: a caller may send 64 KiB of it in each request
_UNSAFE = re.compile(r"[^A-Za-z0-9._:-]")
_VERSION = "2020-10-01"  # of OpenAI's API, which SDKs expect to read


def reply(error: ApiError) -> Response:
    """The error in its envelope."""
    return Response(error.body(), error.status, error.headers, JSON)


def _own_id(scope: Scope) -> str | None:
    """A function URL's own id of a request, 32 hex: the same event delivered twice is one request."""
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
        return uuid.UUID(scope["aws.event"]["requestContext"]["requestId"]).hex
    return None


class Frame:
    """The outermost middleware of ours. `scope["state"]` gets `request_id` and `start` (time.perf_counter()); routes
    add `account` and `tokens`."""

    def __init__(self, app: ASGIApp, paths: Paths, cors: Cors) -> None:
        self.app, self.paths, self.cors = app, paths, cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, method, asked, status = time.perf_counter(), scope["method"], scope["path"], 0
        state = scope.setdefault("state", {})
        state["start"] = start
        state["request_id"] = f"req_{_own_id(scope) or uuid.uuid4().hex}"
        path = self.paths.canonical(asked)
        # HEAD is GET within: the server keeps the body back, so that all of the head is the same.
        scope = {**scope, "path": path, "method": "GET" if method == "HEAD" else method}

        async def framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = state["request_id"]
                headers["openai-processing-ms"] = str(round((time.perf_counter() - start) * 1e3))
                headers["openai-version"] = _VERSION
                if "account" in state:
                    headers["openai-organization"] = state["account"]
                self.cors.mark(headers, Headers(scope=scope).get("origin"))
            await send(message)

        try:
            if method == "OPTIONS":
                await self._options(path, Headers(scope=scope))(scope, receive, framed)
            else:
                await self.app(scope, receive, framed)
        except ApiError as error:
            state["code"] = error.problem.code or error.problem.type
            await reply(error)(scope, receive, framed)
        except ClientDisconnect:
            state["code"] = "client_disconnected"  # nobody is left to be answered
        except asyncio.CancelledError:  # the server ends, and this request has had its time
            if status:
                raise
            again = errors.try_again(errors.OVERLOADED, RETRY_S)
            state["code"] = again.problem.code
            await reply(again)(scope, receive, framed)
        except Exception as error:
            # Code alone: an exception's message may hold what a client sent.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s in request %s, at\n%s", type(error).__name__, state["request_id"], where)
            if status:  # the answer has begun: the server must break it off, and log no more than its name
                raise RuntimeError(f"{type(error).__name__} in request {state['request_id']}") from None
            await reply(errors.UNFORESEEN.error(id=state["request_id"]))(scope, receive, framed)
        log.info(
            "%s '%s' %d%s in %.1f ms, request %s, account %s, tokens %s%s",
            _word(method),
            _path(asked),
            status,
            f" {state['code']}" if "code" in state else "",
            (time.perf_counter() - start) * 1e3,
            state["request_id"],
            state.get("account", "-"),
            state.get("tokens", "-"),
            _theirs(scope),
        )

    def _options(self, path: str, headers: Headers) -> Response:
        """204 and what may be asked of a path. A preflight gets it wherever it goes: of a refused one, a page would
        see that its browser was refused, and not the 404 that says why."""
        allow, preflight = self.paths.allow(path), self.cors.preflight(headers)
        if not allow and not preflight:
            raise errors.UNKNOWN_URL.error(method="OPTIONS", path=path)
        return Response(status_code=204, headers=({"allow": allow} if allow else {}) | preflight)


# What a caller sends is written without quotes, braces and line breaks: nothing in it reads as a line of a log, nor as
# JSON, in which records that no store has taken are read back from there (handler/billing/outbox.py).


def _path(path: str) -> str:
    """A path without keys, percent-encoded again."""
    return quote(errors.without_keys(path), safe="/*", errors="replace").replace(quote("…"), "…")[:_SHOWN]


def _word(text: str) -> str:
    return _UNSAFE.sub("_", errors.without_keys(text))[:_SHOWN]


def _theirs(scope: Scope) -> str:
    """The caller's own name of the request, for the log."""
    name = Headers(scope=scope).get("x-client-request-id")
    return f", client's id '{_word(name)}'" if name else ""
