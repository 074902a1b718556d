"""A manifest.json that is none is refused before anything is done with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from handler.engine import manifest


@pytest.fixture
def layer(small_int8: Path, tmp_path: Path) -> Path:
    """A folder with a manifest in it."""
    (tmp_path / manifest.NAME).write_bytes((small_int8 / manifest.NAME).read_bytes())
    return tmp_path


def edit(layer: Path, **values: Any) -> None:
    path = layer / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_was_saved_is_loaded(layer: Path, tmp_path: Path) -> None:
    facts = manifest.load(layer)
    (tmp_path / "again").mkdir()
    facts.save(tmp_path / "again")
    assert manifest.load(tmp_path / "again") == facts


TYPES: dict[str, Any] = {
    "parity": None,
    "created": "x",
    "aliases": "bge-m3",
    "context": 8192.0,
    "revision": 7,
    "control_ids": ["0"],
    "files": {"model.onnx": {"bytes": "1", "sha256": ""}},
    "sources": {"config.json": None},
}


@pytest.mark.parametrize("name", TYPES)
def test_a_field_of_another_type_is_named(layer: Path, name: str) -> None:
    edit(layer, **{name: TYPES[name]})
    with pytest.raises(manifest.LayerError, match=rf"is not a manifest: .*(bytes|{name}).* is .* Build the layer"):
        manifest.load(layer)


@pytest.mark.parametrize("text", ["[" * 100_000, "7", "null", '{"format": 5}', '{"format": 5, "more": 1}'])
def test_a_manifest_that_is_none_is_refused_in_words(layer: Path, text: str) -> None:
    (layer / manifest.NAME).write_text(text)
    with pytest.raises(manifest.LayerError, match=r"[Bb]uild (it|the layer) again"):
        manifest.load(layer)


def test_a_date_that_no_calendar_has_is_refused(layer: Path) -> None:
    edit(layer, created=10**15)
    with pytest.raises(manifest.LayerError, match="created is 1000000000000000, which is no time"):
        manifest.load(layer)
