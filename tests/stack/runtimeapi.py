"""Lambda's Runtime API, as far as a runtime sees it: events that are put in, and what comes back for each."""

import http.server
import queue
import threading
import time
import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass
class Posted:
    """What the runtime has sent to a path."""

    path: str
    headers: dict[str, str]  # by their names in lower case
    body: bytes


@dataclass
class Invocation:
    event: bytes
    deadline_s: float
    trace: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


class RuntimeApi:
    """A context manager; `address` is what AWS_LAMBDA_RUNTIME_API says. `refuse`: the status of answers that are not
    taken; `hang_up`: end the connection after each `next`, as an idle limit does."""

    def __init__(self) -> None:
        self.refuse, self.hang_up, self.connections = 202, False, 0
        self.posted: queue.Queue[Posted] = queue.Queue()
        self.events: queue.Queue[Invocation | None] = queue.Queue()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Door)
        self._server.daemon_threads = True
        self._server.api = self  # type: ignore[attr-defined]
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, event: bytes, *, seconds: float = 30, trace: str = "") -> str:
        """An event for whoever asks next; its id."""
        invocation = Invocation(event, time.time() + seconds, trace)
        self.events.put(invocation)
        return invocation.id

    def got(self) -> Posted:
        return self.posted.get(timeout=30)


class _Door(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    @property
    def api(self) -> RuntimeApi:
        api: RuntimeApi = self.server.api  # type: ignore[attr-defined]
        return api

    def setup(self) -> None:
        super().setup()
        self.api.connections += 1

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Quiet."""

    def do_GET(self) -> None:
        assert self.path == "/2018-06-01/runtime/invocation/next", self.path
        invocation = self.api.events.get()
        if invocation is None:  # the API is broken
            return self._answer(500, b"{}")
        headers = {
            "Lambda-Runtime-Aws-Request-Id": invocation.id,
            "Lambda-Runtime-Invocation-Id": f"invocation of {invocation.id}",
            "Lambda-Runtime-Deadline-Ms": str(int(invocation.deadline_s * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:us-east-1:123456789012:function:emblet:live",
        }
        if invocation.trace:
            headers["Lambda-Runtime-Trace-Id"] = invocation.trace
        self._answer(200, invocation.event, headers)
        self.close_connection = self.api.hang_up
        return None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.api.posted.put(Posted(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self._answer(self.api.refuse, b'{"status":"OK"}')

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
