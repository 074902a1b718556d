"""AWS Lambda Managed Instances: one process whose threads each ask the Runtime API for a call, all of one handler.

awslambdaric has a process for each of AWS_LAMBDA_MAX_CONCURRENCY calls there, and so a model for each, and no run that
two callers share. The Runtime API takes any number of `next` and `response` at once; everything else is as it says:
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import asyncio
import http.client
import json
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import orjson

from handler import logs
from handler.ending import UnderWay

log = logging.getLogger(__name__)

Handler = Callable[[Any, "Context"], Any]
Headers = http.client.HTTPMessage

_API = "/2018-06-01/runtime"
_JSON = "application/json"
# The longest Timeout that a function may have, for calls by an event source (Lambda developer guide, Managed
# Instances); the emulator's deadlines lie far beyond it.
_LONGEST_S = 5400.0
_ATTEMPTS, _PAUSE_S = 5, 0.1  # to reach the Runtime API; the pause doubles
_CAUSE_BYTES = 1 << 20  # of the header that tells X-Ray of an error, at most


class RuntimeApiError(Exception):
    """The Runtime API cannot be reached, or does not take what it was sent; `status` is what it answered, else 0."""

    def __init__(self, path: str, status: int, reason: str) -> None:
        super().__init__(f"{path}: {status or 'no answer'} {reason}")
        self.status = status


@dataclass(frozen=True)
class Context:
    """What a handler is told of its call, by awslambdaric's names; `deadline_s`: of time.time()."""

    aws_request_id: str
    invoked_function_arn: str
    deadline_s: float

    def get_remaining_time_in_millis(self) -> int:
        return int(max(0.0, self.deadline_s - time.time()) * 1000)


class RuntimeApi:
    """The Runtime API over one connection that is kept: of one thread."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address)  # no timeout: `next` waits for as long as nobody calls

    def next(self) -> tuple[Headers, bytes]:
        """Headers and event of the next call, whenever it comes. Raises RuntimeApiError."""
        return self._ask("GET", "/invocation/next")

    def respond(self, headers: Headers, result: bytes) -> None:
        """The result of the call that came with these headers. Raises RuntimeApiError."""
        self._ask("POST", f"{_call(headers)}/response", result, _returned(headers))

    def fail(self, headers: Headers, error: BaseException) -> None:
        """Report that a call has raised. Raises RuntimeApiError."""
        more = {"Lambda-Runtime-Function-Error-Type": type(error).__name__}
        if len(cause := _cause(error)) < _CAUSE_BYTES:
            more["Lambda-Runtime-Function-XRay-Error-Cause"] = cause
        told = _told(error) | {"requestId": headers["Lambda-Runtime-Aws-Request-Id"]}
        self._ask("POST", f"{_call(headers)}/error", _json(told), _returned(headers) | more)

    def fail_init(self, error: BaseException) -> None:
        """Report that no call will be taken. Raises RuntimeApiError."""
        more = {"Lambda-Runtime-Function-Error-Type": type(error).__name__}
        self._ask("POST", "/init/error", _json(_told(error)), more)

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[Headers, bytes]:
        """Headers and body of the answer. What is sent twice, because the connection broke, is taken once."""
        pause = _PAUSE_S
        for attempt in range(_ATTEMPTS):
            try:
                self._connection.request(method, _API + path, body, {"content-type": _JSON, **(headers or {})})
                answer = self._connection.getresponse()
                received = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()  # the next request opens another
                if attempt == _ATTEMPTS - 1:
                    raise RuntimeApiError(path, 0, repr(error)) from error
                time.sleep(pause)
                pause *= 2
        if answer.status >= 300:
            raise RuntimeApiError(path, answer.status, received[:500].decode(errors="replace"))
        return answer.headers, received


def serve(api: RuntimeApi, handler: Handler, under_way: UnderWay, ends: threading.Event) -> None:
    """Take calls, one after the other, until the process `ends`. Raises RuntimeApiError."""
    asyncio.set_event_loop(asyncio.new_event_loop())  # on which Mangum runs the application
    while not ends.is_set():
        headers, event = api.next()
        ids = {"requestId": headers["Lambda-Runtime-Aws-Request-Id"]}
        if trace := headers.get("Lambda-Runtime-Trace-Id"):
            ids["xrayTraceId"] = trace
        with under_way.one(), logs.of_call(ids):
            try:
                _answer(api, handler, headers, event)
            except RuntimeApiError as error:
                if not error.status:
                    raise
                log.warning("no answer was taken: %s", error)  # too late or too large: Lambda has told its caller


def _answer(api: RuntimeApi, handler: Handler, headers: Headers, event: bytes) -> None:
    try:
        context = Context(
            headers["Lambda-Runtime-Aws-Request-Id"],
            headers.get("Lambda-Runtime-Invoked-Function-Arn", ""),
            min(int(headers["Lambda-Runtime-Deadline-Ms"]) / 1000, time.time() + _LONGEST_S),
        )
        result = handler(json.loads(event), context)
        answer = result if isinstance(result, bytes) else orjson.dumps(result)
    except BaseException as error:  # SystemExit too: it would end this thread alone, and nobody would hear of it
        # Code alone: an exception's message may hold what a client sent; Lambda returns it to whoever called.
        log.error("%s, at\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
        api.fail(headers, error)
    else:
        api.respond(headers, answer)


def _call(headers: Headers) -> str:
    return f"/invocation/{headers['Lambda-Runtime-Aws-Request-Id']}"


def _returned(headers: Headers) -> dict[str, str]:
    """What an answer repeats of its call's headers: where several run at once, an id may come twice (a retry's)."""
    found = headers.get("Lambda-Runtime-Invocation-Id")
    return {"Lambda-Runtime-Invocation-Id": found} if found else {}


def _told(error: BaseException) -> dict[str, Any]:
    stack = traceback.format_tb(error.__traceback__)
    return {"errorType": type(error).__name__, "errorMessage": _message(error), "stackTrace": stack}


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # its own __str__ fails: nothing that is wrong with a call ends its thread, and all other calls
        return type(error).__name__


def _json(told: dict[str, Any]) -> bytes:
    """In ASCII: a message may quote half of a surrogate pair, which UTF-8 has no bytes for."""
    return json.dumps(told).encode()


def _cause(error: BaseException) -> str:
    """An exception as X-Ray reads it, in ASCII, as a header is."""
    frames = traceback.extract_tb(error.__traceback__)
    stack = [{"path": frame.filename, "line": frame.lineno, "label": frame.name} for frame in frames]
    exception = {"type": type(error).__name__, "message": _message(error), "stack": stack}
    paths = sorted({frame.filename for frame in frames})
    return json.dumps({"working_directory": os.getcwd(), "exceptions": [exception], "paths": paths})


def main() -> int:
    """Load what `handler.entry` loads, and serve until the Runtime API fails one of the threads, or SIGTERM comes; then
    no more is taken, and what has begun has DRAIN_SECONDS to be answered. An exit status, 0 after a SIGTERM alone.
    Nothing depends on that signal, which Lambda promises only where there are extensions.
    """
    logs.as_lambda_wants()
    # Not by handler.settings: that settings are wrong has to be reported, too.
    address, calls = os.environ["AWS_LAMBDA_RUNTIME_API"], int(os.environ["AWS_LAMBDA_MAX_CONCURRENCY"])
    try:
        from handler import settings
        from handler.entry import handler
    except BaseException as error:
        log.critical("init failed: %s", error, exc_info=True)
        RuntimeApi(address).fail_init(error)
        return 1
    under_way, ends = UnderWay(), threading.Event()
    ended = SimpleQueue[int]()  # and no other queue: a signal's handler puts into it

    def take() -> None:
        try:
            serve(RuntimeApi(address), handler, under_way, ends)
        except Exception:
            log.critical("the Runtime API is gone", exc_info=True)
        finally:
            ended.put(1)

    signal.signal(signal.SIGTERM, lambda *_: ended.put(0))
    for number in range(calls):
        threading.Thread(target=take, name=f"call {number}", daemon=True).start()
    status = ended.get()  # without one of its threads, the process would take fewer calls than Lambda sends it
    ends.set()
    if not under_way.wait(settings.read().drain_seconds):
        log.error("The process ends, and calls that have begun get no answer.")
    return status


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # and not wait for calls whose answers nobody takes
