"""A small hub of ours, for the hub's own client."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.model_layer.small import ORIGIN, REFERENCE

TOKEN = "hf_" + "x" * 20


@dataclass
class Hub:
    """Serves one repository at one revision to those who have the token; notes what was asked for."""

    url: str = ""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    padding: int = 0  # bytes that the weights are longer by: the client counts in pieces of 10 MiB
    break_after: int | None = None  # bytes of the weights, once
    always: bool = False  # whether after as many of every answer, and not once
    damaged: bool = False  # whether the weights come with another last byte than was announced
    stall: bool = False  # whether nothing comes after those, instead of an end

    def weights(self, method: str) -> list[str | None]:
        """The ranges that were asked for of the weights, None for the whole."""
        return [part for verb, path, part in self.asked if verb == method and path.endswith("pytorch_model.bin")]

    def content(self, name: str) -> bytes:
        return (REFERENCE / name).read_bytes() + bytes(self.padding if name == "pytorch_model.bin" else 0)


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """On a free port of this machine."""
    state, gone = Hub(), threading.Event()
    root = f"/{ORIGIN.id}/resolve/{ORIGIN.revision}/"

    class Door(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def respond(self) -> None:
            path = self.path.partition("?")[0]
            state.asked.append((self.command, path, self.headers.get("range")))
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                self.answer(401, b"", {"content-length": "0"})
            elif path.startswith("/api/models/"):
                files = [
                    {"type": "file", "path": name, "size": len(state.content(name)), "oid": "0" * 40}
                    for name in (*ORIGIN.files, "README.md")
                    if (REFERENCE / name).is_file()
                ]
                commit = {
                    "id": ORIGIN.id,
                    "sha": ORIGIN.revision,
                    "siblings": [{"rfilename": f["path"]} for f in files],
                }
                body = json.dumps(files if "/tree/" in path else commit).encode()
                self.answer(200, body, {"content-type": "application/json", "content-length": str(len(body))})
            elif path.startswith(root) and (REFERENCE / path.removeprefix(root)).is_file():
                self.file(state.content(path.removeprefix(root)))
            else:
                self.answer(404, b"", {"content-length": "0", "x-error-code": "EntryNotFound"})

        def file(self, body: bytes) -> None:
            headers = {"etag": f'"{hashlib.sha256(body).hexdigest()}"', "x-repo-commit": ORIGIN.revision}
            headers["accept-ranges"] = "bytes"
            start = int((self.headers.get("range") or "bytes=0-")[6:].split("-")[0])
            status, whole = (206 if start else 200), len(body)
            if start:
                headers["content-range"] = f"bytes {start}-{whole - 1}/{whole}"
            rest = body[start:]
            if state.damaged and whole > 1_000_000:
                rest = rest[:-1] + b"!"
            headers["content-length"] = str(len(rest))
            if self.command == "GET" and state.break_after and whole > 1_000_000:
                rest, state.break_after = rest[: state.break_after], state.break_after if state.always else None
                self.close_connection = True
                self.answer(status, rest, headers)
                if state.stall:
                    gone.wait(30)
                return
            self.answer(status, rest, headers)

        do_GET = do_HEAD = respond  # noqa: N815  (the server's own names)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    gone.set()
    server.shutdown()
