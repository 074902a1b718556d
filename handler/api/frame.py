"""What stands around every route: request id, headers, one log line, and an envelope for whatever goes wrong."""

import logging
import time
import traceback
import uuid

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handler.contract import errors
from handler.contract.errors import ApiError

log = logging.getLogger(__name__)

JSON = "application/json"
_VERSION = "2020-10-01"  # of OpenAI's API, which SDKs expect to read
_WITHOUT_PREFIX = ("/embeddings", "/models")  # answered as under /v1 too


def reply(error: ApiError) -> Response:
    """The error in its envelope."""
    return Response(error.body(), error.status, error.headers, JSON)


class Frame:
    """The outermost middleware of ours. `scope["state"]` gets `request_id`; routes add `account` and `tokens`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, asked, status = time.perf_counter(), scope["path"], 0
        state = scope.setdefault("state", {})
        state["request_id"] = f"req_{uuid.uuid4().hex}"
        scope["path"] = _canonical(asked)

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
            await send(message)

        try:
            await self.app(scope, receive, framed)
        except ApiError as error:
            state["code"] = error.problem.code or error.problem.type
            await reply(error)(scope, receive, framed)
        except ClientDisconnect:
            state["code"] = "client_disconnected"  # before its body was whole: nobody is left to be answered
        except Exception as error:
            # Code alone: an exception's message may hold what a client sent.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s in request %s, at\n%s", type(error).__name__, state["request_id"], where)
            if status:
                raise  # the answer has begun: the server must break it off
            await reply(errors.UNFORESEEN.error(id=state["request_id"]))(scope, receive, framed)
        log.info(
            "%s %r %d%s in %.1f ms, request %s, account %s, tokens %s",
            scope["method"],
            asked,
            status,
            f" {state['code']}" if "code" in state else "",
            (time.perf_counter() - start) * 1e3,
            state["request_id"],
            state.get("account", "-"),
            state.get("tokens", "-"),
        )


def _canonical(path: str) -> str:
    """The route a path means: `//` and a trailing slash make no difference, nor does `/v1`. Never a redirect, which
    would lose the caller's key or turn a POST into a GET."""
    path = "/" + "/".join(part for part in path.split("/") if part)
    bare = any(path == route or path.startswith(route + "/") for route in _WITHOUT_PREFIX)
    return "/v1" + path if bare else path
