"""`python -m handler.batches submit`: a file from a terminal, its progress, and where its result is."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from handler.batches.__main__ import Bar, main, watch
from handler.batches.paths import PathError, check
from handler.batches.remote import AwayError, Remote, RemoteError
from tests.batches.works import line
from tests.conftest import HOUSE
from tests.stack.server import PlainServer


def run(server: PlainServer, key: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = os.environ | {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": key}
    call = [sys.executable, "-m", "handler.batches", "submit", *arguments]
    return subprocess.run(call, cwd=HOUSE, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.usefixtures("behind")
def test_a_file_is_submitted_watched_and_its_result_copied(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    source, to = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(line("1") + line("2") + line("3", []))
    done = run(jobs_plain, key, str(source), "--watch", "--to", str(to))
    assert done.returncode == 0, done.stderr
    first, told, output, errors = done.stdout.splitlines()
    assert first.startswith("batch_")
    assert told == "completed: 2 done, 1 failed, 8 tokens"
    assert (output, errors) == (f"output: {to}", f"error: {to}.errors")
    assert [json.loads(each)["custom_id"] for each in to.read_text().splitlines()] == ["1", "2"]
    [error] = Path(f"{to}.errors").read_text().splitlines()
    assert json.loads(error)["custom_id"] == "3"
    assert "uploading 100%" in done.stderr
    assert "completed 100% 3/3 lines" in done.stderr


@pytest.mark.usefixtures("behind")
def test_a_bad_file_is_told_by_line(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(line("1") + b"nonsense\n" + line("2", model="\x1b[2J\n"))
    done = run(jobs_plain, key, str(source), "--watch")
    assert done.returncode == 1
    assert "line 2: invalid_json_line: This line is not parseable as valid JSON." in done.stderr
    assert "line 3: model_mismatch: The model '\ufffd[2J\ufffd' is not served here." in done.stderr


def test_without_watching_it_prints_the_batch_and_ends(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(line("1"))
    done = run(jobs_plain, key, str(source))
    assert (done.returncode, done.stdout.startswith("batch_")) == (0, True)


def test_what_is_wrong_is_said_in_a_line(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(line("1"))
    for wrong, said in (
        (run(jobs_plain, "sk-wrong", str(source)), "Incorrect API key provided."),
        (run(jobs_plain, key, str(source), "--url", "http://127.0.0.1:1/v1"), "cannot be reached"),
    ):
        assert wrong.returncode == 1
        assert said in wrong.stderr
        assert "Traceback" not in wrong.stderr


def test_paths_that_cannot_be_are_told_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, empty, folder = tmp_path / "in.jsonl", tmp_path / "empty.jsonl", tmp_path / "folder.jsonl"
    source.write_bytes(line("1"))
    empty.touch()
    folder.mkdir()
    for arguments, said in (
        ([tmp_path / "none.jsonl"], f"{tmp_path / 'none.jsonl'} is not there: name a .jsonl file"),
        ([folder], f"{folder} is not a file: name a .jsonl file"),
        ([empty], f"{empty} is empty: write a request in each line"),
        ([source, "--to", tmp_path / "none" / "out"], f"there is no folder {tmp_path / 'none'}: make it first"),
        ([source, "--to", folder], f"{folder} is a folder: name a file in it"),
        ([source, "--to", source], "is the file that is sent: name another"),
    ):
        place = ["--url", "http://127.0.0.1:1/v1", "--key", "none"]
        assert main(["submit", *map(str, arguments), *place]) == 1
        [error] = capsys.readouterr().err.splitlines()
        assert error.startswith("error: ")
        assert said in error


def test_a_file_that_is_larger_than_a_batch_may_be_is_told_so(tmp_path: Path) -> None:
    large = tmp_path / "large.jsonl"
    with large.open("wb") as file:
        file.truncate((5 << 30) + 1)
    with pytest.raises(PathError, match="has 5,368,709,121 bytes, and a batch 5,368,709,120 at most"):
        check(large, None)


class Misled(Remote):
    """A deployment that signs with a key that S3 does not know."""

    def call(self, *asked: Any) -> dict[str, Any]:
        found = super().call(*asked)
        found["upload"]["url"] = re.sub("Credential=[A-Za-z0-9]+", "Credential=none", found["upload"]["url"])
        return found


def test_why_s3_does_not_take_a_file_is_said_in_its_own_words(
    jobs_plain: PlainServer, key: str, tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(line("1"))
    with pytest.raises(RemoteError, match="403 InvalidAccessKeyId: The AWS Access Key Id"):
        Misled(f"{jobs_plain.url}/v1", key).upload(source, lambda *_: None)


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], str]]:
    """The address of a server that gives an answer and goes."""
    with ExitStack() as servers:

        def serve(answer: bytes) -> str:
            listening = servers.enter_context(socket.create_server(("127.0.0.1", 0)))

            def once() -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

            thread = threading.Thread(target=once)
            thread.start()
            servers.callback(thread.join)
            return f"http://127.0.0.1:{listening.getsockname()[1]}/v1"

        yield serve


@pytest.mark.parametrize(
    "half",
    [b"content-length: 10\r\n\r\nhalf\n", b"transfer-encoding: chunked\r\n\r\n5\r\nhalf\n\r\n"],
    ids=["length", "chunks"],
)
def test_half_of_a_result_is_none(answering: Callable[[bytes], str], tmp_path: Path, half: bytes) -> None:
    to = tmp_path / "out.jsonl"
    to.write_text("before")
    with pytest.raises(AwayError, match="in the middle of an answer"):
        Remote(answering(b"HTTP/1.1 200 OK\r\n" + half), "none").download("file-1", to)
    assert to.read_text() == "before"


def test_what_is_no_deployment_is_said_to_be_none(answering: Callable[[bytes], str]) -> None:
    page = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>")
    with pytest.raises(RemoteError, match=f"{page} answers with what is no JSON"):
        Remote(page, "none").call("GET", "/batches")
    with pytest.raises(RemoteError, match="gives no answer of HTTP: SSH"):
        Remote(answering(b"SSH-2.0\r\n"), "none").call("GET", "/batches")


def test_what_is_no_address_is_a_matter_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["submit", "in.jsonl", "--url", "localhost/v1", "--key", "none"])
    assert ended.value.code == 2
    assert "localhost/v1 is no address: it begins with https:// or http://" in capsys.readouterr().err


class Flaky(Remote):
    """A deployment that answers at the end of these only."""

    def __init__(self, answers: Iterable[Any]) -> None:
        super().__init__("http://none", "none")
        self._answers = iter(answers)

    def call(self, *_: Any) -> dict[str, Any]:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        found: dict[str, Any] = answer
        return found


def told(status: str) -> dict[str, Any]:
    return {"id": "batch_1", "status": status, "request_counts": {"completed": 0, "failed": 0, "total": 1}}


def test_watching_goes_on_while_the_deployment_is_away_for_a_while() -> None:
    answers = [AwayError("503"), ConnectionResetError(), told("in_progress"), AwayError("503"), told("completed")]
    ended = watch(Flaky(answers), told("validating"), Bar(io.StringIO()), lambda _: None)
    assert ended["status"] == "completed"


def test_watching_ends_where_the_deployment_refuses_or_stays_away() -> None:
    for answers in ([RemoteError("Incorrect API key provided.")], repeat(AwayError("503"))):
        with pytest.raises(RemoteError):
            watch(Flaky(answers), told("validating"), Bar(io.StringIO()), lambda _: None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_tells_rate_and_time_left() -> None:
    out, now = Terminal(), [0.0]
    bar = Bar(out, lambda: now[0])
    bar.show("in_progress", 0, 1000, "lines")
    now[0] = 10.0
    bar.show("in_progress", 100, 1000, "lines")
    last = out.getvalue().rpartition("\r")[2]
    assert last.startswith("in_progress  [###")
    assert "10% 100/1,000 lines, 10/s, 1m30s left" in last
