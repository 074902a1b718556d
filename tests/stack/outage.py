"""What stands between a service and AWS's stand-in, and fails when it is told to: a proxy, so that what a process of
its own meets are real refusals, real silence and real answers that never come."""

import http.client
import http.server
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_SILENCE_S = 5.0  # far longer than anybody waits for a record


@dataclass(frozen=True)
class Fault:
    """What becomes of the next `times` calls of an operation. `done`: they are carried out all the same. They get an
    error of this `status` and `code`, or none (`status` 0) but silence, or with `hang_up` the end of the connection.
    Those that are only `late_s` get their right answer so many seconds later."""

    operation: str
    times: int
    status: int = 0
    code: str = "InternalServerError"
    done: bool = False
    hang_up: bool = False
    late_s: float = 0.0


class Outage:
    """A proxy before `endpoint`, with its own `url`. A context manager."""

    def __init__(self, endpoint: str) -> None:
        self._server = _Server(("127.0.0.1", 0), _Door)
        self._server.target = urlsplit(endpoint).netloc
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="outage", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over()
        self._server.shutdown()
        self._server.server_close()

    def begin(self, *faults: Fault) -> None:
        """These, in place of what was wrong before."""
        with self._server.lock:
            self._server.faults = {fault.operation: [fault, fault.times] for fault in faults}

    def over(self) -> None:
        """Everything gets through again."""
        self.begin()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    target = ""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.lock = threading.Lock()
        self.faults: dict[str, list[Fault | int]] = {}

    def handle_error(self, *_: object) -> None:
        """Quiet: clients that hang up are what this is for."""

    def next(self, operation: str) -> Fault | None:
        with self.lock:
            fault, left = self.faults.get(operation, (None, 0))
            if not isinstance(fault, Fault) or not isinstance(left, int) or left <= 0:
                return None
            self.faults[operation][1] = left - 1
            return fault


class _Door(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        fault = self.server.next(self.headers["x-amz-target"].rpartition(".")[2])
        if fault and fault.late_s:
            time.sleep(fault.late_s)
            fault = None
        status, headers, answer = self._forward(body) if fault is None or fault.done else (0, {}, b"")
        if fault is None:
            return self._answer(status, headers, answer)
        if fault.hang_up:
            self.close_connection = True
            return None
        if not fault.status:
            time.sleep(_SILENCE_S)
            self.close_connection = True
            return None
        return self._answer(fault.status, {}, b'{"__type":"com.amazonaws#%s"}' % fault.code.encode())

    def _forward(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.target, timeout=30)
        try:
            connection.request("POST", self.path, body, dict(self.headers))
            response = connection.getresponse()
            return response.status, {"content-type": response.headers["content-type"]}, response.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
