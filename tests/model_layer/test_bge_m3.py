"""bge-m3 from its repository's own layout, at small geometry: what transformers and torch made and answered
(tests/reference/make_bge_m3.py) against our layer of the same files."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from model_layer import build, calibration, run, smoothing, torchfile
from model_layer.catalog import MODELS, Thresholds
from model_layer.checkpoint import SourceError
from model_layer.sources import open_source
from tests.model_layer.small import EASY, HOUSE, ORIGIN, REFERENCE, SMALL, make


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return dict(np.load(REFERENCE / "reference.npz"))


def ours(layer: Path, ids: Any) -> tuple[Any, Any, Any]:
    feed = run.feed(ids.astype(np.int64))
    dense, states = run.session(layer / "model.onnx").run(["dense", "token_states"], feed)
    sparse, rows = run.session(layer / "heads.onnx").run(["sparse", "multi_vector"], {"token_states": states})
    return dense[0], sparse[0], rows[0]


@pytest.mark.parametrize("index", range(9))
def test_all_three_outputs_agree_with_torch(small: Path, reference: dict[str, Any], index: int) -> None:
    """The last of the texts has 8,192 tokens, and the second none but the specials."""
    ids = reference[f"{index}.ids"]
    dense, sparse, rows = ours(small, ids)
    assert np.abs(dense - reference[f"{index}.dense"]).max() < 1e-4
    assert np.abs(sparse - reference[f"{index}.sparse"]).max() < 1e-4, "relu included"
    assert sparse.min() >= 0
    theirs = run.terms(ids, reference[f"{index}.sparse"], (0, 1, 2, 3))
    mine = run.terms(ids, sparse, (0, 1, 2, 3))
    assert set(mine) == set(theirs)
    assert all(abs(mine[token] - theirs[token]) < 1e-4 for token in theirs)
    assert len(rows) == len(ids) - 1, "every position after <s>, </s> included"
    assert np.abs(rows[:40] - reference[f"{index}.multi_vector"]).max() < 1e-4
    assert np.abs(rows[-1] - reference[f"{index}.last_row"]).max() < 1e-4


def test_a_text_that_was_padded_there_has_the_vector_it_has_here_without(
    small: Path, reference: dict[str, Any]
) -> None:
    """Positions do not count padding, and nothing attends to it."""
    padded = reference["padded"]
    assert len({len(reference[f"{index}.ids"]) for index in range(len(padded))}) > 5
    for index, theirs in enumerate(padded):
        assert np.abs(ours(small, reference[f"{index}.ids"])[0] - theirs).max() < 1e-4


def test_the_references_have_terms_to_compare(reference: dict[str, Any]) -> None:
    counts = [len(run.terms(reference[f"{i}.ids"], reference[f"{i}.sparse"], (0, 1, 2, 3))) for i in range(9)]
    assert sum(count >= 5 for count in counts) >= 5, counts


@pytest.mark.skipif(
    not os.environ.get("TORCH_PYTHON"),
    reason="TORCH_PYTHON names no interpreter with torch, transformers, blingfire and sentencepiece",
)
def test_torch_and_transformers_make_these_files_and_answers_anew(tmp_path: Path, reference: dict[str, Any]) -> None:
    call = [os.environ["TORCH_PYTHON"], "tests/reference/make_bge_m3.py", str(tmp_path)]
    subprocess.run(call, cwd=HOUSE, env=os.environ | {"PYTHONPATH": str(HOUSE)}, check=True, capture_output=True)
    made = dict(np.load(tmp_path / "reference.npz"))
    assert set(made) == set(reference)
    for name, array in made.items():
        assert np.abs(array.astype(np.float64) - reference[name]).max(initial=0) < 1e-5, name
    for name in ("pytorch_model.bin", "sparse_linear.pt", "colbert_linear.pt"):
        kept = torchfile.read(REFERENCE / name)
        for tensor, array in torchfile.read(tmp_path / name).items():
            assert (array == kept[tensor]).all(), tensor


def test_the_largest_weight_of_a_token_counts_and_control_pieces_have_none() -> None:
    ids = np.array([0, 70, 8, 70, 70, 3, 2])
    weights = np.array([0.9, 0.2, 0.1, 0.5, 0.3, 0.8, 0.7], np.float32)
    found = run.terms(ids, weights, (0, 1, 2, 3))
    assert found == {70: pytest.approx(0.5), 8: pytest.approx(0.1)}


def test_the_longest_reference_has_the_whole_context(reference: dict[str, Any]) -> None:
    assert len(reference["8.ids"]) == 8192


def test_another_first_position_would_be_seen(tmp_path: Path, reference: dict[str, Any]) -> None:
    wrong = replace(SMALL, geometry=replace(SMALL.geometry, first_position=1))
    with pytest.raises(SourceError, match="pad_token_id 1, so that text starts at position 2, bge-m3's at 1"):
        make(REFERENCE, tmp_path / "refused", model=wrong)
    elsewhere = Path(shutil.copytree(REFERENCE, tmp_path / "repository"))
    (elsewhere / "config.json").unlink()  # which would have said so
    off = replace(wrong, origin=replace(ORIGIN, files=dict.fromkeys(set(ORIGIN.files) - {"config.json"})))
    layer = make(elsewhere, tmp_path / "off", model=off)
    assert ours(layer, reference["0.ids"])[0] @ reference["0.dense"] < 0.999


def test_the_manifest_lists_heads_and_files_and_what_no_pin_confirmed(small: Path) -> None:
    facts = json.loads((small / "manifest.json").read_text())
    assert facts["outputs"] == ["dense", "token_states", "sparse", "multi_vector"]
    assert facts["control_ids"] == [0, 1, 2, 3, 4000]
    assert set(facts["sources"]) == set(facts["unpinned"]) == set(ORIGIN.files)
    assert facts["revision"] == "5617a9f61b028005a4858fdac845db406aefb181"
    assert {"heads.onnx", "heads.bin"} <= set(facts["files"])


def test_a_channel_that_calibration_never_woke_does_not_swamp_a_text(tmp_path: Path) -> None:
    """No factor may be far from 1: a text's activations have one scale for all channels."""
    source, _ = open_source(SMALL, tmp_path, REFERENCE)
    made = make(REFERENCE, tmp_path / "fp32")
    found = smoothing.factors(source, SMALL.geometry, calibration.ranges(made, made, ["the"]))
    assert len(found) == 2 * 5
    for factors in found.values():
        assert 1 / 8 <= factors.min() <= factors.max() <= 8
        assert (np.log2(factors) % 1 == 0).all(), "powers of two, which no processor rounds"


def test_int8_keeps_dense_vectors_and_terms_and_says_where_it_falls_short(tmp_path: Path) -> None:
    easy = replace(SMALL, thresholds=Thresholds(0.98, 0.9, 0.9, 0.8, sparse_overlap=0.8))
    facts = json.loads((make(REFERENCE, tmp_path / "int8", "int8", easy) / "manifest.json").read_text())
    assert facts["precision"] == "int8"
    assert 0.8 <= facts["parity"]["sparse_overlap"] <= 1
    strict = replace(SMALL, thresholds=Thresholds(0.999999, 0.9, None, None, sparse_overlap=0.999999))
    with pytest.raises(build.BuildError, match=r"mean_cosine is .* sparse_overlap is .* --precision fp32 passes"):
        make(REFERENCE, tmp_path / "strict", "int8", strict)


def test_a_matrix_that_does_not_exist_cannot_be_kept_in_float32(tmp_path: Path) -> None:
    with pytest.raises(build.BuildError, match=r"no matrix encoder\.layer\.9\.output\.dense"):
        make(REFERENCE, tmp_path / "never", "int8", replace(SMALL, unquantized=("encoder.layer.9.output.dense",)))


def test_matrices_on_the_measured_list_stay_in_float32(tmp_path: Path) -> None:
    name = "encoder.layer.1.output.dense"
    kept = make(REFERENCE, tmp_path / "kept", "int8", replace(EASY, unquantized=(name,)))
    kinds = {node.input[1]: node.op_type for node in onnx.load(kept / "model.onnx", load_external_data=False).graph.node
             if len(node.input) > 1}  # fmt: skip
    assert kinds[name] == "MatMul"
    assert kinds["encoder.layer.0.output.dense"] == "MatMulIntegerToFloat"


def test_what_reads_the_same_stays_in_float32_together_and_is_listed(tmp_path: Path) -> None:
    parts = [f"encoder.layer.1.attention.self.{part}" for part in ("query", "key", "value")]
    kept = make(REFERENCE, tmp_path / "kept", "int8", replace(EASY, unquantized=(parts[1],)))
    assert json.loads((kept / "manifest.json").read_text())["float32"] == parts
    nodes = onnx.load(kept / "model.onnx", load_external_data=False).graph.node
    assert {node.input[1] for node in nodes if node.op_type == "MatMul"} == set(parts)


def test_every_figure_of_the_real_model_is_judged() -> None:
    """Its int8 has not been seen yet: were a threshold missing, whatever came out would be built."""
    wanted = Thresholds(mean_cosine=0.99, percentile_cosine=0.98, spearman=0.98, neighbours=0.95, sparse_overlap=0.9)
    assert MODELS["bge-m3"].thresholds == wanted


OUT = HOUSE / "model_layer/out"
REAL = [path for name in ("bge-m3", "bge-m3-mixed", "bge-m3-fp32") if (path := OUT / name).is_dir()]


@pytest.mark.parametrize(
    "real",
    REAL or [pytest.param(None, marks=pytest.mark.skip(reason="the real weights are not here: build bge-m3 first"))],
    ids=lambda path: path and path.name,
)
def test_the_model_cards_example_gives_its_published_similarities(real: Path) -> None:
    """The card of BAAI/bge-m3, whose figures were made in fp16."""
    queries = ["What is BGE M3?", "Defination of BM25"]
    passages = [
        "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
        (
            "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query terms "
            "appearing in each document"
        ),
    ]
    found = [ours(real, ids[0]) for ids in run.token_ids(real, queries + passages)]
    dense = np.array([[found[q][0] @ found[p][0] for p in (2, 3)] for q in (0, 1)])
    assert np.abs(dense - [[0.6265, 0.3477], [0.3499, 0.678]]).max() < 0.02
    rows = [each[2] for each in found]
    colbert = [(rows[0] @ rows[p].T).max(axis=1).mean() for p in (2, 3)]
    assert np.abs(np.array(colbert) - [0.7797, 0.4620]).max() < 0.02
    terms = run.outputs(real, [queries[0], passages[0]], (0, 1, 2, 3)).sparse
    lexical = sum(weight * terms[1].get(token, 0) for token, weight in terms[0].items())
    assert abs(lexical - 0.19554901123046875) < 0.02
