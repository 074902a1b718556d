"""The layer of the real weights: exact where it is unquantized, close where it is not."""

import base64
import functools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_layer import parity, run
from model_layer.catalog import MODELS, Model, Texts
from model_layer.run import Outputs

REFERENCE = Path(__file__).resolve().parents[1] / "reference/minilm.json"


PAIRS = Texts(("pairs",))


def _judged_on(texts: Texts) -> Model:
    return replace(MODELS["bge-m3"], verification=texts)


@functools.cache
def outputs(layer: Path, texts: Texts) -> Outputs:
    return run.outputs(layer, parity.texts(texts))


def embed(layer: Path, texts: list[str]) -> Any:
    return run.embed(layer, texts)


@pytest.fixture(scope="module")
def reference() -> list[dict[str, Any]]:
    """What sentence-transformers itself answers (tests/reference/make_minilm.py)."""
    vectors: list[dict[str, Any]] = json.loads(REFERENCE.read_text(encoding="utf-8"))["vectors"]
    return vectors


def test_the_unquantized_graph_agrees_with_sentence_transformers(
    minilm_fp32: Path, reference: list[dict[str, Any]]
) -> None:
    ours = embed(minilm_fp32, [row["text"] for row in reference])
    theirs = np.stack([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in reference])
    assert len(theirs) == 24
    assert np.einsum("ij,ij->i", ours, theirs).min() >= 0.9999
    assert np.abs(ours - theirs).max() < 1e-5


def test_tokens_are_counted_as_sentence_transformers_does(minilm: Path, reference: list[dict[str, Any]]) -> None:
    ids = run.token_ids(minilm, [row["text"] for row in reference])
    assert [len(each) - 2 for each in ids] == [row["tokens"] for row in reference]


def test_int8_vectors_agree_with_the_unquantized_ones(minilm: Path, minilm_fp32: Path) -> None:
    figures = parity.figures(outputs(minilm, PAIRS), outputs(minilm_fp32, PAIRS), _judged_on(PAIRS))
    assert figures["texts"] == 260
    assert figures["mean_cosine"] >= 0.997, "smoothed channels give 0.9980; 0.99 is what the build requires"
    assert figures["least_cosine"] >= 0.99
    assert figures["neighbours"] >= 0.95


def test_the_verification_texts_have_neighbours_to_lose(minilm_fp32: Path) -> None:
    """Two lines on one matter each: the nearest neighbour of each is its partner, so that losing it means something."""
    vectors = outputs(minilm_fp32, PAIRS).dense
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    assert (similarity.argmax(axis=1) == np.arange(260) ^ 1).mean() == 1.0


def test_on_texts_without_a_partner_int8_stays_close_too(minilm: Path, minilm_fp32: Path) -> None:
    """The calibration lines have few near neighbours: half the gaps to the second nearest are under 0.03, which is what
    int8's noise can turn round."""
    texts = Texts(("calibration",))
    figures = parity.figures(outputs(minilm, texts), outputs(minilm_fp32, texts), _judged_on(texts))
    assert figures["mean_cosine"] >= 0.997
    assert figures["neighbours"] >= 0.88, "0.93, which the README states beside the other figure"


def test_token_states_are_there_on_demand_and_pool_to_the_dense_vector(minilm_fp32: Path) -> None:
    session = run.session(minilm_fp32 / "model.onnx")
    [ids] = run.token_ids(minilm_fp32, ["fetched only on demand"])
    dense, states = session.run(["dense", "token_states"], run.feed(ids))
    assert states.shape == (1, len(ids), 384)
    pooled = states[0].mean(axis=0)
    assert np.abs(dense[0] - pooled / np.linalg.norm(pooled)).max() < 1e-6


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_texts_that_share_a_run_keep_their_vectors_bit_for_bit(minilm: Path, minilm_fp32: Path, precision: str) -> None:
    """Of any lengths, in any order, on one to three threads."""
    layer = {"int8": minilm, "fp32": minilm_fp32}[precision]
    ids = list(run.token_ids(layer, parity.texts(Texts(("calibration",), 60))))
    single = run.session(layer / "model.onnx")
    alone = [single.run(["dense"], run.feed(each))[0][0] for each in ids]
    draw = random.Random(3)
    for threads in (1, 2, 3):
        session = run.session(layer / "model.onnx", threads)
        for _ in range(20):
            company = draw.sample(range(len(ids)), draw.randint(2, 12))
            together = session.run(["dense"], run.feed(*(ids[index] for index in company)))[0]
            assert [alone[index].tobytes() for index in company] == [each.tobytes() for each in together], company


def test_the_manifest_says_what_the_layer_is(minilm: Path) -> None:
    facts = json.loads((minilm / "manifest.json").read_text())
    model = MODELS["all-minilm-l6-v2"]
    assert {name: facts[name] for name in ("id", "weights", "dimensions", "context", "pooling", "precision")} == {
        "id": "all-minilm-l6-v2",
        "weights": "real",
        "dimensions": 384,
        "context": 256,
        "pooling": "mean",
        "precision": "int8",
    }
    assert facts["licence"] == model.licence
    assert facts["outputs"] == ["dense", "token_states"]
    names = {"model.onnx", "packed.onnx", "weights.bin", "tokenizer.json", "reference.npz", "cl100k_base.tiktoken"}
    assert set(facts["files"]) == names
    assert facts["activation_scales"] == "static"
    assert facts["parity"]["mean_cosine"] >= 0.99
    assert facts["parity"]["docstrings.texts"] == 3000
    assert facts["parity"]["docstrings.mean_cosine"] >= 0.997
    assert facts["parity"]["docstrings.top_ten"] >= 0.92


def test_weights_are_external_data_on_page_boundaries(minilm: Path) -> None:
    import onnx

    graph = onnx.load(minilm / "model.onnx", load_external_data=False).graph
    external = [each for each in graph.initializer if each.data_location == onnx.TensorProto.EXTERNAL]
    offsets = [int(entry.value) for each in external for entry in each.external_data if entry.key == "offset"]
    assert len(offsets) == len(external) > 100
    assert all(offset % 4096 == 0 for offset in offsets)
    assert (minilm / "model.onnx").stat().st_size < 100_000
