"""What `verify` finds wrong with a layer that somebody has meddled with, its hashes edited to match."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from handler.engine import manifest
from model_layer import parity, verify
from model_layer.catalog import MODELS, Thresholds
from tests.model_layer.small import EASY, REFERENCE, make

SECOND = "encoder.layer.1.output.dense"


@pytest.fixture(autouse=True)
def catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog's bge-m3 is the small one."""
    monkeypatch.setitem(MODELS, "bge-m3", EASY)


@pytest.fixture
def layer(small_int8: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_int8, tmp_path / "layer"))


def edit(layer: Path, **values: Any) -> None:
    path = layer / manifest.NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rehash(layer: Path) -> None:
    """What whoever meddles would do, too."""
    files = json.loads((layer / manifest.NAME).read_text())["files"]
    there = {name: layer / name for name in files if (layer / name).is_file()}
    edit(layer, files={name: {"bytes": at.stat().st_size, "sha256": manifest.sha256(at)} for name, at in there.items()})


def faults(layer: Path) -> str:
    return "\n".join(verify.faults(layer)[0])


def test_a_built_layer_is_right(layer: Path, small: Path) -> None:
    for each in (layer, small):
        found, figures = verify.faults(each)
        assert found == []
        assert figures["mean_cosine"] > 0.9


EDITS: dict[str, Any] = {
    "activation_scales": "dynamic",
    "aliases": ["bge"],
    "asked": "mixed or so",
    "cl100k_licence": "MIT",
    "context": 512,
    "control_ids": [0, 1, 2, 3],
    "cpu": ["avx512_vnni"],
    "description": "The best.",
    "dimensions": 64,
    "float32": [SECOND],
    "layers": 24,
    "licence": "proprietary",
    "onnxruntime": "1.0.0",
    "outputs": ["dense"],
    "owned_by": "me",
    "pooling": "mean",
    "precision": "fp32",
    "revision": "main",
    "source": "elsewhere",
    "sources": {},
    "special_tokens": 0,
    "target": "gpu",
    "unpinned": [],
    "vocabulary": 4000,
    "weights": "seeded",
}


@pytest.mark.parametrize("name", EDITS)
def test_no_fact_of_the_manifest_is_believed(layer: Path, name: str) -> None:
    edit(layer, **{name: EDITS[name]})
    assert f"the manifest says that {name} is " in faults(layer)


def test_every_fact_is_among_these() -> None:
    """Of the others, the format is the reader's, the date anybody's, and the rest has tests of its own."""
    assert set(EDITS) == set(manifest.Manifest.__annotations__) - {"format", "created", "id", "files", "parity"}


def test_another_model_is_seen(layer: Path) -> None:
    edit(layer, id="bge-m4")
    assert faults(layer) == "bge-m4 is no model of the catalog"
    edit(layer, id="all-minilm-l6-v2")
    assert "no file of a layer" in faults(layer)


@pytest.mark.parametrize("name", ["mean_cosine", "spearman", "neighbours", "sparse_overlap", "texts"])
def test_recorded_figures_are_measured_anew(layer: Path, name: str) -> None:
    recorded = json.loads((layer / manifest.NAME).read_text())["parity"]
    for better in (recorded | {name: recorded[name] + 0.2}, {key: recorded[key] for key in recorded if key != name}):
        edit(layer, parity=better)
        assert f"{name} is {recorded[name]}, the manifest recorded" in faults(layer)


def test_the_figures_are_held_against_the_catalogs_thresholds(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beyond = Thresholds(0.5, 0.1, None, None, sparse_overlap=1.1)
    monkeypatch.setitem(MODELS, "bge-m3", replace(EASY, thresholds=beyond))
    assert "sparse_overlap is " in faults(layer)


def test_a_reference_of_easier_texts_is_seen(layer: Path) -> None:
    texts, kept = parity.load_reference(layer / parity.REFERENCE)
    parity.save_reference(layer / parity.REFERENCE, [texts[0], *texts[:-1]], kept)
    rehash(layer)
    assert faults(layer) == "reference.npz holds other texts than this version's"


def test_a_model_of_another_shape_is_seen(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = EASY.geometry
    for name, value in {
        "vocabulary": 4000,
        "hidden": 48,
        "heads": 4,
        "intermediate": 128,
        "layers": 3,
        "positions": 514,
        "first_position": 0,
        "norm_epsilon": 1e-12,
    }.items():
        other = replace(EASY, geometry=replace(geometry, **{name: value}))  # type: ignore[arg-type]
        monkeypatch.setitem(MODELS, "bge-m3", other)
        found = faults(layer)
        assert name == "vocabulary" or f"the graph has {name} {getattr(geometry, name)}, bge-m3 {value}" in found
        assert found
    monkeypatch.setitem(MODELS, "bge-m3", replace(EASY, pooling="mean"))
    assert "the graph has cls pooling, bge-m3 mean" in faults(layer)


def test_a_pin_of_the_catalog_is_asked_for(layer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = dict.fromkeys(EASY.origin.files) | {"config.json": "0" * 64}  # type: ignore[union-attr]
    monkeypatch.setitem(MODELS, "bge-m3", replace(EASY, origin=replace(EASY.origin, files=pins)))  # type: ignore[type-var]
    assert "the manifest says that sources is " in faults(layer)


def test_a_layer_that_is_mixed_says_which_matrices_and_that_it_was_asked_for(tmp_path: Path) -> None:
    mixed = make(REFERENCE, tmp_path / "mixed", "int8", replace(EASY, unquantized=(SECOND,)))
    assert "the manifest says that asked is 'int8', it is 'mixed'" in faults(mixed)
    edit(mixed, asked="mixed")
    assert faults(mixed) == ""


def test_a_file_that_is_none_of_the_layers_is_named(layer: Path) -> None:
    (layer / "notes.txt").write_text("mine")
    assert "notes.txt: no file of a layer, or not in the manifest" in faults(layer)
    files = json.loads((layer / manifest.NAME).read_text())["files"]
    edit(layer, files=files | {"notes.txt": {"bytes": 4, "sha256": manifest.sha256(layer / "notes.txt")}})
    assert "notes.txt: no file of a layer" in faults(layer)


def test_another_vocabulary_of_openais_ids_is_seen(layer: Path) -> None:
    (layer / manifest.CL100K).write_text("IQ== 0\n")
    files = json.loads((layer / manifest.NAME).read_text())["files"]
    edit(layer, files=files | {manifest.CL100K: {}}, cl100k_licence="MIT (OpenAI, tiktoken)")
    rehash(layer)
    assert "cl100k_base.tiktoken is not the vocabulary that OpenAI publishes" in faults(layer)


def test_a_tokenizer_that_is_ready_at_once_and_cuts_otherwise_is_seen(layer: Path) -> None:
    path = layer / manifest.UNIGRAM
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values | {"unknown": 5}), encoding="utf-8")
    rehash(layer)
    assert "unigram.json is not what tokenizer.json makes it" in faults(layer)
    path.unlink()
    rehash(layer)
    assert "unigram.json is not what tokenizer.json makes it" in faults(layer)


def test_packed_matrices_that_are_none_of_these_are_seen(layer: Path) -> None:
    weights = bytearray((layer / manifest.WEIGHTS).read_bytes())
    weights[-5] ^= 1  # the last of them stands at the end
    (layer / manifest.WEIGHTS).write_bytes(weights)
    rehash(layer)
    assert "packed.onnx and its matrices are not what onnxruntime makes of model.onnx" in faults(layer)


def test_a_packed_graph_of_other_nodes_or_another_probe_is_seen(layer: Path) -> None:
    graph = onnx.load(layer / manifest.PACKED, load_external_data=False)
    graph.metadata_props[0].value += "1"
    (layer / manifest.PACKED).write_bytes(graph.SerializeToString())
    rehash(layer)
    assert "packed.onnx tells of another vector than model.onnx gives" in faults(layer)
    graph.graph.node[3].name += "x"
    (layer / manifest.PACKED).write_bytes(graph.SerializeToString())
    rehash(layer)
    assert "packed.onnx and its matrices are not what onnxruntime makes of model.onnx" in faults(layer)


@contextlib.contextmanager
def numbers(layer: Path, graph: str, array: str) -> Iterator[Any]:
    """A float32 array of a graph, to be changed where it lies."""
    arrays = onnx.load(layer / graph, load_external_data=False).graph.initializer
    [found] = [each for each in arrays if each.name == array]
    place = {entry.key: entry.value for entry in found.external_data}
    mapped = np.memmap(layer / place["location"], "<f4", "r+", int(place["offset"]), tuple(found.dims))
    yield mapped
    mapped.flush()


@pytest.mark.parametrize(
    ("graph", "array", "row"), [("heads.onnx", "colbert_linear.weight", 3), ("model.onnx", "word_embeddings.scale", 17)]
)
def test_a_number_that_is_none_is_seen_even_where_no_text_reads_it(
    layer: Path, graph: str, array: str, row: int
) -> None:
    with numbers(layer, graph, array) as mapped:
        mapped[row] = np.nan
    rehash(layer)
    assert f"{array} of {graph} holds NaN or infinity" in faults(layer)


def test_outputs_that_are_not_finite_are_seen(layer: Path) -> None:
    """Large numbers are finite, their products need not be."""
    with numbers(layer, "heads.onnx", "colbert_linear.weight") as mapped:
        mapped[:] = 3e38
    rehash(layer)
    assert "some output of it is not finite" in faults(layer)


def other_reference(layer: Path, cut: slice) -> None:
    texts, kept = parity.load_reference(layer / parity.REFERENCE)
    parity.save_reference(layer / parity.REFERENCE, texts, replace(kept, dense=kept.dense[:, cut]))


def behead(layer: Path) -> None:
    for name in ("heads.onnx", "heads.bin"):
        (layer / name).unlink()


SPOILT: dict[str, Callable[[Path], Any]] = {
    "junk for a graph": lambda at: (at / "model.onnx").write_bytes(b"junk"),
    "no graph": lambda at: (at / "model.onnx").write_bytes(b""),
    "junk for heads": lambda at: (at / "heads.onnx").write_bytes(b"junk"),
    "heads for a graph": lambda at: shutil.copy(at / "heads.onnx", at / "model.onnx"),
    "weights cut short": lambda at: (at / "weights.bin").write_bytes((at / "weights.bin").read_bytes()[:-4096]),
    "junk for a tokenizer": lambda at: (at / "tokenizer.json").write_text("{"),
    "a tokenizer of brackets": lambda at: (at / "tokenizer.json").write_text("[" * 100_000),
    "a tokenizer that is no text": lambda at: (at / "tokenizer.json").write_bytes(b"\xff"),
    "junk for a reference": lambda at: (at / "reference.npz").write_bytes(b"junk"),
    "an empty reference": lambda at: (at / "reference.npz").write_bytes(b""),
    "a reference of other dimensions": lambda at: other_reference(at, slice(16)),
    "a reference without numbers": lambda at: other_reference(at, slice(0)),
    "a reference of no texts": lambda at: parity.save_reference(
        at / "reference.npz", [], replace(parity.load_reference(at / "reference.npz")[1], sparse=[])
    ),
    "no heads": behead,
    "no tokenizer": lambda at: (at / "tokenizer.json").unlink(),
}


@pytest.mark.parametrize("name", SPOILT)
def test_files_that_cannot_be_used_are_faults_in_a_sentence(layer: Path, name: str) -> None:
    SPOILT[name](layer)
    rehash(layer)
    found, figures = verify.faults(layer)
    assert len(found) == 1
    assert "\n" not in found[0]
    assert figures == {}
