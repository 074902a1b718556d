"""What `inspect` shows, row by row."""

import json
import shutil
from pathlib import Path

import pytest

from handler.engine import manifest
from model_layer import inspect
from tests.model_layer.small import ORIGIN


def rows(layer: Path) -> dict[str, str]:
    """What stands behind each name."""
    shown = list(inspect.lines(layer, manifest.load(layer)))
    assert shown[0] == str(layer)
    return {line[2:12].strip(): line[13:] for line in shown[1:]}


@pytest.fixture
def layer(small_int8: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_int8, tmp_path / "layer"))


def edit(layer: Path, **values: object) -> None:
    path = layer / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_every_row_is_there(layer: Path) -> None:
    edit(layer, created=1_700_000_000, cl100k_licence="MIT")
    shown = rows(layer)
    parity = shown.pop("precision")
    assert parity.startswith("int8 for cpu: cosine to fp32 0.9")
    assert "sparse terms" in parity
    files = shown.pop("files")
    expected = {
        "model": "bge-m3  (BAAI/bge-m3, text-embedding-bge-m3)",
        "weights": "real",
        "source": "BAAI/bge-m3, revision 5617a9f61b028005a4858fdac845db406aefb181",
        "licence": "MIT; cl100k_base MIT",
        "shape": "2 layers, 32 dimensions, cls pooling, 4,001 pieces",
        "context": "8192 tokens, 8190 of text",
        "outputs": "dense, token_states, sparse, multi_vector",
        "in float32": "no matrix",
        "machines": "x86-64, cpu, any vector width; packed for avx2 without AMX",
        "made": "2023-11-14T22:13:20+00:00 with onnxruntime 1.31.1",
    }
    assert {name: shown[name] for name in expected} == expected
    facts = manifest.load(layer)
    assert shown["size"] == f"{sum(file.bytes for file in facts.files.values()) / 1e6:.1f} MB"
    assert files.startswith(f"{len(ORIGIN.files)}; not pinned, as found: ")
    for name, sha in facts.sources.items():
        assert f"{name} sha256 {sha}" in files
    listed = [line.split() for line in inspect.lines(layer, facts) if " MB  sha256 " in line]
    assert {(name, sha) for name, *_, sha in listed} == {(name, each.sha256) for name, each in facts.files.items()}


def test_weights_that_nobody_pins_are_named(layer: Path) -> None:
    edit(layer, sources={"config.json": "1" * 64, "model.safetensors": "2" * 64}, unpinned=["model.safetensors"])
    assert rows(layer)["files"] == "2; not pinned, as found: model.safetensors sha256 " + "2" * 64
    edit(layer, unpinned=[])
    assert rows(layer)["files"] == "2, each with the SHA-256 that the catalog pins"


def test_seeded_weights_mean_nothing(layer: Path) -> None:
    edit(layer, weights="seeded", sources={}, unpinned=[])
    shown = rows(layer)
    assert shown["weights"] == "seeded at random: the vectors mean nothing"
    assert shown["files"] == "none: made here"


def test_matrices_in_float32_are_listed(layer: Path, small: Path) -> None:
    edit(layer, float32=["a", "b"])
    assert rows(layer)["in float32"] == "a, b"
    assert rows(small)["in float32"] == "all"


def test_figures_that_are_missing_do_not_stop_it(layer: Path) -> None:
    edit(layer, parity={})
    assert "nan" in rows(layer)["precision"]
