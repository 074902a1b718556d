"""What a build replaces, what it leaves alone, and when it is not needed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from handler.engine import manifest
from model_layer import build
from model_layer.build import BuildError, is_complete
from model_layer.sources import open_source
from tests.model_layer.small import EASY, REFERENCE, SMALL, make


@pytest.fixture
def layer(small_int8: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_int8, tmp_path / "layer"))


def test_a_layer_and_an_empty_folder_are_replaced(layer: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (layer, tmp_path / "empty"):
        before = folder.stat().st_ino
        make(REFERENCE, folder)
        assert folder.stat().st_ino != before
        assert manifest.load(folder).precision == "fp32"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "layer"]


def test_a_layer_of_another_format_is_replaced(layer: Path) -> None:
    (layer / manifest.NAME).write_text("{}")
    make(REFERENCE, layer)
    manifest.load(layer)


def test_a_layer_with_something_beside_it_is_not_replaced(layer: Path) -> None:
    (layer / "notes.txt").write_text("mine")
    with pytest.raises(BuildError, match="choose another place with --out"):
        make(REFERENCE, layer)
    assert (layer / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["new", "new/thesis.txt", "layer/thesis.txt"])
def test_what_somebody_puts_there_during_a_build_stays(layer: Path, tmp_path: Path, name: str) -> None:
    theirs = tmp_path / name
    folder = layer if layer in theirs.parents else tmp_path / "new"

    def progress(step: str) -> None:
        if step.startswith("SHA-256"):
            theirs.parent.mkdir(exist_ok=True)
            theirs.write_text("years of work")

    with pytest.raises(BuildError, match="is no model layer and not empty"):
        build.build(SMALL, open_source(SMALL, tmp_path, REFERENCE), "fp32", folder, progress)
    assert theirs.read_text() == "years of work"
    assert {path.name for path in tmp_path.iterdir()} == {"layer", folder.name}


def test_a_layer_is_complete_for_what_was_asked_for(tmp_path: Path, small: Path, small_int8: Path) -> None:
    mixed = make(REFERENCE, tmp_path / "mixed", "mixed", EASY)
    assert manifest.load(mixed).float32 == (), "its graph is that of int8"
    for folder, asked in ((mixed, "mixed"), (small, "fp32"), (small_int8, "int8")):
        complete = [each for each in build.PRECISIONS["cpu"] if is_complete(folder, EASY, each, with_cl100k=False)]
        assert complete == [asked]


def test_a_layer_is_not_complete_for_another_model(small: Path, tmp_path: Path) -> None:
    assert is_complete(small, SMALL, "fp32", with_cl100k=False)
    assert not is_complete(small, SMALL, "fp32", with_cl100k=True)
    assert not is_complete(small, replace(SMALL, revision="main"), "fp32", with_cl100k=False)
    assert not is_complete(small, SMALL.with_layers(3), "fp32", with_cl100k=False)
    assert not is_complete(tmp_path, SMALL, "fp32", with_cl100k=False)
