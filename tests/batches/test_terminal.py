"""`python -m handler.batches`: a file from a terminal, its progress, and where its result is."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest

from handler.batches.__main__ import Bar, _lines, main, watch
from handler.batches.paths import PathError, check
from handler.batches.remote import AwayError, Remote, RemoteError
from tests.batches.works import Works, line
from tests.conftest import HOUSE
from tests.stack.server import PlainServer


def call(server: PlainServer, key: str, *arguments: str) -> Any:
    env = os.environ | {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": key}
    return {"args": [sys.executable, "-m", "handler.batches", *arguments], "cwd": HOUSE, "env": env, "text": True}


def run(server: PlainServer, key: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(**call(server, key, *arguments), capture_output=True, timeout=60)


@pytest.mark.usefixtures("behind")
def test_a_file_is_submitted_watched_and_its_result_copied(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    source, to = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(line("1") + line("2") + line("3", []))
    done = run(jobs_plain, key, "submit", str(source), "--to", str(to))
    assert done.returncode == 1, "of three lines one has failed"
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
def test_a_batch_is_come_back_to(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    source, to = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(line("1"))
    batch = run(jobs_plain, key, "submit", str(source)).stdout.strip()
    seen = run(jobs_plain, key, "watch", batch)
    assert seen.returncode == 0, seen.stderr
    assert seen.stdout.splitlines()[-1] == f"to copy it: python -m handler.batches watch {batch} --to PATH"
    assert run(jobs_plain, key, "watch", batch, "--to", str(to)).returncode == 0
    assert '"custom_id":"1"' in to.read_text()


def test_one_that_is_interrupted_goes_on_until_it_is_cancelled(
    jobs_plain: PlainServer, key: str, server_works: Works, tmp_path: Path
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(line("1"))
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(**call(jobs_plain, key, "submit", str(source), "--watch"), **pipes) as watching:
        assert watching.stdout
        batch = watching.stdout.readline().strip()
        watching.send_signal(signal.SIGINT)
        said = watching.communicate(timeout=60)[1]
    assert watching.returncode == 130
    again, end = (f"`python -m handler.batches {command} {batch}`" for command in ("watch", "cancel"))
    assert f"interrupted; {batch} goes on: {again} comes back to it, {end} ends it" in said
    cancelled = run(jobs_plain, key, "cancel", batch)
    assert (cancelled.returncode, cancelled.stdout) == (0, "cancelling\n")
    server_works.until_quiet()
    assert run(jobs_plain, key, "watch", batch).returncode == 1


@pytest.mark.usefixtures("behind")
def test_a_bad_file_is_told_by_line(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(line("1") + b"nonsense\n" + line("2", model="\x1b[2J\n"))
    done = run(jobs_plain, key, "submit", str(source), "--watch")
    assert done.returncode == 1
    assert "line 2: invalid_json_line: This line is not parseable as valid JSON." in done.stderr
    assert "line 3: model_mismatch: The model '\ufffd[2J\ufffd' is not served here." in done.stderr


def test_without_watching_it_prints_the_batch_and_ends(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(line("1"))
    done = run(jobs_plain, key, "submit", str(source))
    assert (done.returncode, done.stdout.startswith("batch_")) == (0, True)


def test_what_is_wrong_is_said_in_a_line(jobs_plain: PlainServer, key: str, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(line("1"))
    for wrong, said in (
        (run(jobs_plain, "sk-wrong", "submit", str(source)), "Incorrect API key provided."),
        (run(jobs_plain, key, "submit", str(source), "--url", "http://127.0.0.1:1/v1"), "cannot be reached"),
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
    (tmp_path / "old.errors").touch()
    for arguments, said in (
        ([tmp_path / "none.jsonl"], f"{tmp_path / 'none.jsonl'} is not there: name a .jsonl file"),
        ([folder], f"{folder} is not a file: name a .jsonl file"),
        ([empty], f"{empty} is empty: write a request in each line"),
        ([source, "--to", tmp_path / "none" / "out"], f"there is no folder {tmp_path / 'none'}: make it first"),
        ([source, "--to", folder], f"{folder} is a folder: name a file in it"),
        ([source, "--to", source], f"{source} is there already: move it away first, or name another"),
        ([source, "--to", tmp_path / "old"], f"{tmp_path / 'old.errors'} is there already"),
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
    out = io.StringIO()
    ended = watch(Flaky(answers), told("validating"), Bar(out), lambda _: None)
    assert ended["status"] == "completed"
    said = [each for each in out.getvalue().splitlines() if "deployment" in each]
    away, back = "the deployment is away, trying again: 503", "the deployment is back"
    assert said == [away, back, away, back]


def test_watching_ends_where_the_deployment_refuses_or_stays_away() -> None:
    for answers in ([RemoteError("Incorrect API key provided.")], repeat(AwayError("503"))):
        with pytest.raises(RemoteError):
            watch(Flaky(answers), told("validating"), Bar(io.StringIO()), lambda _: None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_tells_rate_and_time_left() -> None:
    for done, total, unit, said in (
        (100, 1000, "lines", "100/1,000 lines, 10 lines/s, 1m30s left"),
        (50, 500, "B", "50/500 B, 5 B/s, 1m30s left"),
        (25_000_000, 250_000_000, "B", "25.0/250.0 MB, 2.5 MB/s, 1m30s left"),
    ):
        out, now = Terminal(), [0.0]
        bar = Bar(out, lambda now=now: now[0])  # type: ignore[misc]
        bar.show("in_progress", 0, total, unit)
        assert "/s" not in out.getvalue(), "nobody knows yet"
        now[0] = 10.0
        bar.show("in_progress", done, total, unit)
        last = out.getvalue().rpartition("\r")[2]
        assert last.startswith("in_progress  [###")
        assert f"10% {said}" in last


def test_of_a_batch_that_was_ended_the_bar_counts_what_was_done() -> None:
    counts = {"completed": 15, "failed": 85, "total": 100}
    for status, done in (("completed", 100), ("in_progress", 100), ("cancelled", 15), ("expired", 15)):
        assert _lines({"status": status, "request_counts": counts}) == (done, 100)


def test_what_is_no_batchs_id_is_a_matter_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("watch", "cancel"):
        with pytest.raises(SystemExit) as ended:
            main([command, "", "--url", "http://none/v1", "--key", "none"])
        assert ended.value.code == 2
        assert "'' is no batch's id" in capsys.readouterr().err
