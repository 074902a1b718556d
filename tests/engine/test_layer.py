import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from handler.engine import manifest
from handler.engine.layer import open_layer
from handler.engine.manifest import LayerError
from handler.settings import Settings


@pytest.fixture
def layer(minilm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(minilm, tmp_path / "layer"))


def refusal(layer: Path, **settings: str) -> str:
    with pytest.raises(LayerError) as caught:
        open_layer(Settings(model_dir=str(layer), **settings))  # type: ignore[arg-type]
    return str(caught.value)


def edit(layer: Path, **values: Any) -> None:
    path = layer / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_built_layer_opens(layer: Path) -> None:
    opened = open_layer(Settings(model_dir=str(layer), model_check="hashes"))
    assert (opened.manifest.id, opened.manifest.dimensions, opened.manifest.content_tokens) == (
        "all-minilm-l6-v2",
        384,
        254,
    )


def test_a_missing_layer_says_how_to_build_one(tmp_path: Path) -> None:
    assert "python -m model_layer build" in refusal(tmp_path)


def test_a_file_of_another_size_is_refused_at_start(layer: Path) -> None:
    with (layer / "weights.bin").open("ab") as file:
        file.write(b"x")
    assert "weights.bin has" in refusal(layer)


def test_a_missing_file_is_refused_at_start(layer: Path) -> None:
    (layer / "tokenizer.json").unlink()
    assert "tokenizer.json is missing" in refusal(layer)


def test_a_changed_byte_is_refused_where_hashes_are_asked_for(layer: Path) -> None:
    weights = bytearray((layer / "weights.bin").read_bytes())
    weights[5000] ^= 1
    (layer / "weights.bin").write_bytes(weights)
    open_layer(Settings(model_dir=str(layer)))  # the sizes are right
    assert "weights.bin has another SHA-256" in refusal(layer, model_check="hashes")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 1}, f"has not the layer format {manifest.FORMAT}"),
        ({"target": "tpu"}, "is for tpu, this version serves cpu and cuda layers"),
        ({"surprise": 1}, "is not a manifest"),
        ({"files": 3}, "is not a manifest"),
        ({"files": {}}, "the manifest does not list model.onnx"),
        ({"files": {"../../etc/passwd": {"bytes": 1, "sha256": ""}}}, "is no name of a file"),
    ],
)
def test_a_manifest_of_another_kind_is_refused_with_the_reason(layer: Path, values: Any, message: str) -> None:
    edit(layer, **values)
    assert message in refusal(layer)


def test_a_manifest_that_is_no_json_is_refused(layer: Path) -> None:
    (layer / manifest.NAME).write_text("{")
    assert "cannot be read" in refusal(layer)
