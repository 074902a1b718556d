"""A function URL (payload format 2.0) on a loopback port, over a pool of emulators: what stands before the handler."""

import http.server
import sys
import threading
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.stack.emulator import EVENT_LIMIT, Emulator, InvocationError, to_json
from tests.stack.payload import JSON_TYPE, to_event, to_response

# Lambda's own refusals: error type and body.
TOO_LARGE = ("RequestEntityTooLargeException", b'{"Message":null}')
TOO_MANY = (
    "TooManyRequestsException",
    b'{"Reason":"ReservedFunctionConcurrentInvocationLimitExceeded","Type":"User","message":"Rate Exceeded."}',
)


class ThrottledError(Exception):
    """As many calls run as the function may have environments."""


class Pool:
    """At most `size` environments of one function, each started when it is first needed."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], *, cwd: Path, size: int, memory_mb: int, timeout_s: int
    ) -> None:
        self.size = size
        self._new = lambda: Emulator(command, env, cwd=cwd, memory_mb=memory_mb, timeout_s=timeout_s)
        self._lock = threading.Lock()
        self._slots = size  # environments that may still be started
        self._idle: list[Emulator] = []
        self.started: list[Emulator] = []  # in order of their start, those that are gone too

    def take(self) -> Emulator:
        """The environment that was last used, or a new one; ThrottledError where all are busy."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if not self._slots:
                raise ThrottledError(f"all {self.size} environments are busy")
            self._slots -= 1
        try:
            emulator = self._new().start()
        except BaseException:
            with self._lock:
                self._slots += 1
            raise
        self.started.append(emulator)
        return emulator

    def give(self, emulator: Emulator) -> None:
        """Put it back for the next call; one that is spent is ended and leaves its place to a new one."""
        if not emulator.usable:
            emulator.stop()
        with self._lock:
            if emulator.usable:
                self._idle.append(emulator)
            else:
                self._slots += 1

    def stop(self) -> None:
        with self._lock:
            self._slots = 0
            self._idle.clear()
        for emulator in self.started:
            emulator.stop()


class FrontDoor:
    """The function and its URL; `size` is its reserved concurrency. A context manager."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        cwd: Path,
        size: int = 2,
        memory_mb: int = 3538,
        timeout_s: int = 30,
    ) -> None:
        self.pool = Pool(command, env, cwd=cwd, size=size, memory_mb=memory_mb, timeout_s=timeout_s)
        self._server = _Server(("127.0.0.1", 0), _Door)
        self._server.pool = self.pool
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="front door", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.pool.stop()

    def warm(self) -> Emulator:
        """Start an environment ahead of the first request; its init still waits for that request, as RIE has it."""
        emulator = self.pool.take()
        self.pool.give(emulator)
        return emulator

    def invoke(self, event: Any) -> Any:
        """Call the function itself, past the URL: what an event source or `aws lambda invoke` does."""
        emulator = self.pool.take()
        try:
            return emulator.invoke(event)
        finally:
            self.pool.give(emulator)

    @property
    def log(self) -> str:
        """All environments' logs, one after the other."""
        return "\n".join(emulator.log for emulator in self.pool.started)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    pool: Pool

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that has gone is no error of ours
            super().handle_error(request, client_address)


class _Door(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer's last packet waits 40 ms for the client's acknowledgement

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet: the emulators' logs say what was called."""

    def do_any(self) -> None:
        # Not self.path: http.server collapses slashes at its start, Lambda does not.
        target = self.requestline.split()[1]
        event = to_event(self.command, target, self.headers.items(), self._body(), self.client_address[0])
        request_id, payload = event["requestContext"]["requestId"], to_json(event)
        if len(payload) > EVENT_LIMIT:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, request_id, *TOO_LARGE)
        try:
            emulator = self.server.pool.take()
        except ThrottledError:
            return self._refuse(HTTPStatus.TOO_MANY_REQUESTS, request_id, *TOO_MANY)
        try:
            status, headers, body = to_response(emulator.invoke(payload, request_id=request_id))
        except (InvocationError, ValueError):
            status, headers, body = HTTPStatus.BAD_GATEWAY, [JSON_TYPE], b"Internal Server Error"
        finally:
            self.server.pool.give(emulator)
        return self._answer(status, [("x-amzn-requestid", request_id), *headers], body)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = do_any  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def _refuse(self, status: int, request_id: str, kind: str, body: bytes) -> None:
        self._answer(status, [JSON_TYPE, ("x-amzn-requestid", request_id), ("x-amzn-errortype", kind)], body)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("date", formatdate(usegmt=True))
        for name, value in headers:
            self.send_header(name, value)
        bodiless = status < HTTPStatus.OK or status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
        if not bodiless:
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if not bodiless and self.command != "HEAD":
            self.wfile.write(body)
