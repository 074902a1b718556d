"""The hub's own client against a small hub of ours on this machine: the real one cannot be asked for in a test."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.model_layer.hub import TOKEN, Hub, serve
from tests.model_layer.small import HOUSE, ORIGIN, REFERENCE


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as hub:
        yield hub


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


def test_a_file_of_the_cache_that_was_deleted_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    """What the message on a damaged one says to do."""
    folder = Path(fetch(hub, tmp_path).stdout.strip())
    for name in ("config.json", "pytorch_model.bin"):
        (folder / name).resolve().unlink()
    assert fetch(hub, tmp_path).returncode == 0
    for name in ORIGIN.files:
        assert (folder / name).read_bytes() == (REFERENCE / name).read_bytes()


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
    until(lambda: sum(part.stat().st_size for part in tmp_path.rglob("*.part")) >= 20_000_000)
    first.kill()
    first.communicate()
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "pytorch_model.bin").read_bytes() == hub.content("pytorch_model.bin")
    [again] = [asked for _, path, asked in hub.asked if path.endswith("pytorch_model.bin") and asked]
    assert again is not None
    assert int(again.removeprefix("bytes=").rstrip("-")) >= 20_000_000
    assert not list(tmp_path.rglob("*.part"))


def test_of_two_downloads_at_once_one_waits_and_goes_on_where_the_other_ended(hub: Hub, tmp_path: Path) -> None:
    hub.padding, hub.break_after, hub.stall = 30_000_000, 25_000_000, True
    call, env = [sys.executable, "-c", FETCH], given(hub, tmp_path)
    first = subprocess.Popen(call, cwd=HOUSE, env=env, stderr=subprocess.PIPE)
    until(lambda: sum(part.stat().st_size for part in tmp_path.rglob("*.part")) >= 20_000_000)
    second = subprocess.Popen(call, cwd=HOUSE, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: hub.weights("HEAD") == [None, None])
    time.sleep(0.5)
    assert hub.weights("GET") == [None], "the second fetches nothing while the first does"
    first.kill()
    first.communicate()
    out, error = second.communicate()
    assert second.returncode == 0, error
    assert (Path(out.strip()) / "pytorch_model.bin").read_bytes() == hub.content("pytorch_model.bin")
    assert hub.weights("GET") == [None, "bytes=20971520-"]


def test_more_than_there_is_to_fetch_is_thrown_away(hub: Hub, tmp_path: Path) -> None:
    blobs = tmp_path / "hub/models--BAAI--bge-m3/blobs"
    blobs.mkdir(parents=True)
    content = hub.content("pytorch_model.bin")
    (blobs / f"{hashlib.sha256(content).hexdigest()}.part").write_bytes(content + b"more")
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "pytorch_model.bin").read_bytes() == content


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_weights_that_came_damaged_are_not_kept(hub: Hub, tmp_path: Path) -> None:
    hub.padding, hub.damaged = 30_000_000, True
    done = fetch(hub, tmp_path)
    assert "came damaged" in done.stderr
    assert not list(tmp_path.rglob("*.part"))
    hub.damaged = False
    assert fetch(hub, tmp_path).returncode == 0


def test_weights_that_are_not_the_pinned_ones_are_not_even_fetched(hub: Hub, tmp_path: Path) -> None:
    done = build(tmp_path, given(hub, tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"the catalog pins {ORIGIN.files['pytorch_model.bin']}: it was not fetched." in done.stderr
    assert not [path for method, path, _ in hub.asked if method == "GET" and path.endswith("pytorch_model.bin")]


UNREACHABLE = {
    "refused": {"HF_TOKEN": "hf_wrong"},
    "offline and not there": {"HF_HUB_OFFLINE": "1"},
    "a closed port": {"HF_ENDPOINT": "http://127.0.0.1:1"},
    "a dead proxy": {"HTTP_PROXY": "http://127.0.0.1:1"},
    "no address": {"HF_ENDPOINT": "http://["},
}


@pytest.mark.parametrize("name", UNREACHABLE)
def test_what_cannot_be_had_is_one_sentence_that_says_what_to_do(hub: Hub, tmp_path: Path, name: str) -> None:
    refused(build(tmp_path, given(hub, tmp_path) | UNREACHABLE[name]))
    assert not (tmp_path / "never").exists()


def test_a_connection_that_is_always_cut_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.padding, hub.break_after, hub.always = 30_000_000, 1000, True
    done = fetch(hub, tmp_path)
    assert "SourceError: BAAI/bge-m3 at" in done.stderr
    assert "Try again (it goes on where it stopped)" in done.stderr


def build(folder: Path, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    call = [sys.executable, "-m", "model_layer", "build", "bge-m3", "--cl100k", "none", "--out", str(folder / "never")]
    return subprocess.run(call, cwd=HOUSE, env=env, capture_output=True, text=True, check=False)


def refused(done: "subprocess.CompletedProcess[str]") -> None:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "could not be fetched" in error
    assert "--from DIR" in error
