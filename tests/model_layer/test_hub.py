"""The hub's own client against a small hub of ours on this machine: the real one cannot be asked for in a test."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from model_layer.catalog import MODELS, Repository

HOUSE = Path(__file__).resolve().parents[2]
REFERENCE = HOUSE / "tests/reference/bge_m3_small"
ORIGIN = cast(Repository, MODELS["bge-m3"].origin)
TOKEN = "hf_" + "x" * 20


@dataclass
class Hub:
    """Serves one repository at one revision to those who have the token; notes what was asked for."""

    url: str = ""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    padding: int = 0  # bytes that the weights are longer by: the client counts in pieces of 10 MiB
    break_after: int | None = None  # bytes of the weights, once
    damaged: bool = False  # whether the weights come with another last byte than was announced
    stall: bool = False  # whether nothing comes after those, instead of an end

    def content(self, name: str) -> bytes:
        return (REFERENCE / name).read_bytes() + bytes(self.padding if name == "pytorch_model.bin" else 0)


@pytest.fixture
def hub() -> Iterator[Hub]:
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

        def serve(self) -> None:
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
                rest, state.break_after = rest[: state.break_after], None
                self.close_connection = True
                self.answer(status, rest, headers)
                if state.stall:
                    gone.wait(30)
                return
            self.answer(status, rest, headers)

        do_GET = do_HEAD = serve  # noqa: N815  (the server's own names)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    yield state
    gone.set()
    server.shutdown()


# The catalog's repository, whose pins these small files cannot have.
FETCH = (
    "from dataclasses import replace; from model_layer import hub, catalog; origin = catalog.MODELS['bge-m3'].origin;"
    "print(hub.fetch(replace(origin, files=dict.fromkeys(origin.files))))"
)


def given(hub: Hub, home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}


def fetch(hub: Hub, home: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    call = [sys.executable, "-c", FETCH]
    return subprocess.run(call, cwd=HOUSE, env=given(hub, home) | env, capture_output=True, text=True, check=False)


def test_the_pinned_revisions_files_are_fetched_with_the_token_and_kept(hub: Hub, tmp_path: Path) -> None:
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.name == ORIGIN.revision
    for name in ORIGIN.files:
        assert (folder / name).read_bytes() == (REFERENCE / name).read_bytes()
    assert not (folder / "README.md").exists(), "only what is read is fetched"
    assert "pytorch_model.bin" in done.stderr or "%" in done.stderr, "progress is shown"
    assert TOKEN not in done.stdout + done.stderr

    offline = fetch(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:1", HF_HUB_OFFLINE="1")
    assert offline.stdout == done.stdout, offline.stderr


def test_a_download_that_broke_off_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.padding, hub.break_after = 30_000_000, 15_000_000
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    weights = Path(done.stdout.strip()) / "pytorch_model.bin"
    assert weights.read_bytes() == hub.content("pytorch_model.bin")
    ranges = [asked for _, path, asked in hub.asked if path.endswith("pytorch_model.bin") and asked]
    assert ranges == ["bytes=10485760-"], hub.asked


def test_what_a_killed_process_had_fetched_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    hub.padding, hub.break_after, hub.stall = 30_000_000, 25_000_000, True
    first = subprocess.Popen([sys.executable, "-c", FETCH], cwd=HOUSE, env=given(hub, tmp_path), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and sum(part.stat().st_size for part in tmp_path.rglob("*.part")) < 20_000_000:
        time.sleep(0.05)
    first.kill()
    first.communicate()
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "pytorch_model.bin").read_bytes() == hub.content("pytorch_model.bin")
    [again] = [asked for _, path, asked in hub.asked if path.endswith("pytorch_model.bin") and asked]
    assert again is not None
    assert int(again.removeprefix("bytes=").rstrip("-")) >= 20_000_000
    assert not list(tmp_path.rglob("*.part"))


def test_weights_that_came_damaged_are_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.padding, hub.damaged = 30_000_000, True
    done = fetch(hub, tmp_path)
    assert "came damaged" in done.stderr
    assert not list(tmp_path.rglob("*.part"))
    hub.damaged = False
    assert fetch(hub, tmp_path).returncode == 0


def test_weights_that_are_not_the_pinned_ones_are_not_even_fetched(hub: Hub, tmp_path: Path) -> None:
    call = [
        sys.executable,
        "-m",
        "model_layer",
        "build",
        "bge-m3",
        "--cl100k",
        "none",
        "--out",
        str(tmp_path / "never"),
    ]
    done = subprocess.run(call, cwd=HOUSE, env=given(hub, tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"the catalog pins {ORIGIN.files['pytorch_model.bin']}: it was not fetched." in done.stderr
    assert not [path for method, path, _ in hub.asked if method == "GET" and path.endswith("pytorch_model.bin")]


@pytest.mark.parametrize(
    "env", [{"HF_TOKEN": "hf_wrong"}, {"HF_HUB_OFFLINE": "1"}], ids=["refused", "offline and not there"]
)
def test_what_cannot_be_had_is_one_sentence_that_says_what_to_do(hub: Hub, tmp_path: Path, env: dict[str, str]) -> None:
    given = {"PATH": os.environ["PATH"], "HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.url} | env
    done = subprocess.run(
        [sys.executable, "-m", "model_layer", "build", "bge-m3", "--out", str(tmp_path / "never")],
        cwd=HOUSE,
        env=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "could not be fetched" in done.stderr
    assert "--from DIR" in done.stderr
    assert not (tmp_path / "never").exists()
