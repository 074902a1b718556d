"""What stands between a service and AWS's stand-in, and fails when it is told to: a proxy, so that what a process of
its own meets are real refusals, real silence and real answers that never come."""

import http.client
import http.server
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

_SILENCE_S = 5.0  # far longer than anybody waits for a record
_SERVICES = {"DynamoDB_20120810": "DynamoDB", "AmazonSQS": "SQS"}
# S3's operations, which no header names: by method, of objects and of uploads in parts.
_OF_OBJECTS = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
_OF_UPLOADS = {
    "PUT": "UploadPart",
    "POST": "CompleteMultipartUpload",
    "DELETE": "AbortMultipartUpload",
    "GET": "ListParts",
}
_OWN = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}  # headers of a connection


@dataclass(frozen=True)
class Fault:
    """What becomes of the next `times` calls of an operation, or of a service: DynamoDB, SQS, S3. `done`: they are
    carried out all the same. They get an error of this `status` and `code`, or none (`status` 0) but silence, or with
    `hang_up` the end of the connection, or with `kill` the end of who called, which that brings about. Those that are
    only `late_s` get their right answer so many seconds later."""

    operation: str
    times: int
    status: int = 0
    code: str = "InternalServerError"
    done: bool = False
    hang_up: bool = False
    late_s: float = 0.0
    kill: Callable[[], None] | None = None


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
            self._server.faults = {fault.operation: (fault, fault.times) for fault in faults}

    def over(self) -> None:
        """Everything gets through again."""
        self.begin()

    @property
    def left(self) -> dict[str, int]:
        """Of what has been begun: how many calls of which operation have still to come."""
        with self._server.lock:
            return {operation: int(left) for operation, (_, left) in self._server.faults.items() if left}


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    target = ""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.lock = threading.Lock()
        self.faults: dict[str, tuple[Fault, int]] = {}

    def handle_error(self, *_: object) -> None:
        """Quiet: clients that hang up are what this is for."""

    def next(self, *names: str) -> Fault | None:
        """What is wrong with a call that has these names."""
        with self.lock:
            for name in names:
                fault, left = self.faults.get(name, (None, 0))
                if fault and left:
                    self.faults[name] = fault, left - 1
                    return fault
            return None


class _Door(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = self.server.next(*self._names())
        if fault and fault.late_s:
            time.sleep(fault.late_s)
            fault = None
        status, headers, answer = self._forward(body) if fault is None or fault.done else (0, {}, b"")
        if fault is None:
            return self._answer(status, headers, answer)
        if fault.kill:
            fault.kill()
        if fault.kill or fault.hang_up:
            self.close_connection = True
            return None
        if not fault.status:
            time.sleep(_SILENCE_S)
            self.close_connection = True
            return None
        said = b"<Error><Code>%s</Code></Error>" if self._target is None else b'{"__type":"com.amazonaws#%s"}'
        return self._answer(fault.status, {}, said % fault.code.encode())

    do_PUT = do_GET = do_HEAD = do_DELETE = do_POST  # noqa: N815  (http.server's own names)

    @property
    def _target(self) -> str | None:
        return self.headers.get("x-amz-target")

    def _names(self) -> tuple[str, str]:
        """Operation and service of a call."""
        if self._target is not None:
            version, _, operation = self._target.rpartition(".")
            return operation, _SERVICES[version]
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if "uploads" in query:
            return "CreateMultipartUpload", "S3"
        return (_OF_UPLOADS if "uploadId" in query else _OF_OBJECTS)[self.command], "S3"

    def _forward(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.target, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            headers = {name: value for name, value in response.headers.items() if name.lower() not in _OWN}
            answer = response.read()
            length = response.headers["content-length"] if self.command == "HEAD" else str(len(answer))
            return response.status, headers | {"content-length": length}, answer
        finally:
            connection.close()

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
