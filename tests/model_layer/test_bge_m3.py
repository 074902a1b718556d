"""bge-m3 from its repository's own layout, at small geometry: what transformers and torch made and answered
(tests/reference/make_bge_m3.py) against our layer of the same files."""

import json
import os
import re
import shutil
import subprocess
import sysconfig
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from model_layer import build, catalog, run, smoothing, torchfile
from model_layer.catalog import MODELS, Geometry, Model, Repository, Texts
from model_layer.checkpoint import SourceError
from model_layer.sources import open_source
from model_layer.tokenizer import layer_form

HOUSE = Path(__file__).resolve().parents[2]
REFERENCE = HOUSE / "tests/reference/bge_m3_small"
CONTROL = ("<s>", "</s>", "<pad>", "<unk>", "<mask>")
LINES = (Path(__file__).parent / "scripts.txt").read_text(encoding="utf-8").splitlines()
ORIGIN = cast(Repository, MODELS["bge-m3"].origin)
SMALL = replace(
    MODELS["bge-m3"],
    origin=replace(ORIGIN, files=dict.fromkeys(ORIGIN.files)),  # nobody pins these
    geometry=Geometry(4001, hidden=32, heads=2, intermediate=64, layers=2, positions=8194, first_position=2,
                      token_types=1, norm_epsilon=1e-5),
    calibration=Texts(("calibration",), 20),
    verification=Texts(("pairs",), 40),
)  # fmt: skip


def make(folder: Path, out: Path, precision: str = "fp32", model: Model = SMALL) -> Path:
    build.build(model, open_source(model, out.parent, folder), precision, out, lambda _: None)
    return out


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(REFERENCE, tmp_path_factory.mktemp("bge-m3") / "fp32")


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return dict(np.load(REFERENCE / "reference.npz"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the repository, to be spoilt."""
    return Path(shutil.copytree(REFERENCE, tmp_path / "repository"))


def ours(layer: Path, ids: Any) -> tuple[Any, Any, Any]:
    feed = {"input_ids": ids[None].astype(np.int64)}
    dense, states = run.session(layer / "model.onnx").run(["dense", "token_states"], feed)
    sparse, rows = run.session(layer / "heads.onnx").run(["sparse", "multi_vector"], {"token_states": states})
    return dense[0], sparse[0], rows[0]


@pytest.mark.parametrize("index", range(9))
def test_all_three_outputs_agree_with_torch(layer: Path, reference: dict[str, Any], index: int) -> None:
    """The last of the texts has 8,192 tokens, and the second none but the specials."""
    ids = reference[f"{index}.ids"]
    dense, sparse, rows = ours(layer, ids)
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
    layer: Path, reference: dict[str, Any]
) -> None:
    """Positions do not count padding, and nothing attends to it."""
    padded = reference["padded"]
    assert len({len(reference[f"{index}.ids"]) for index in range(len(padded))}) > 5
    for index, theirs in enumerate(padded):
        assert np.abs(ours(layer, reference[f"{index}.ids"])[0] - theirs).max() < 1e-4


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


def test_the_manifest_lists_heads_and_files_and_what_no_pin_confirmed(layer: Path) -> None:
    facts = json.loads((layer / "manifest.json").read_text())
    assert facts["outputs"] == ["dense", "token_states", "sparse", "multi_vector"]
    assert facts["control_ids"] == [0, 1, 2, 3, 4000]
    assert set(facts["sources"]) == set(facts["unpinned"]) == set(ORIGIN.files)
    assert facts["revision"] == "5617a9f61b028005a4858fdac845db406aefb181"
    assert {"heads.onnx", "heads.bin"} <= set(facts["files"])


def corpus() -> list[str]:
    """Our texts in two dozen languages, the standard library's source, every 50th assigned character in company, and
    spellings that normalizers trip over: some 30,000 texts."""
    texts = [line for path in (HOUSE / "model_layer/texts").glob("*.txt") for line in path.read_text().splitlines()]
    library = Path(sysconfig.get_path("stdlib"))
    sources = [path.read_text(errors="replace").splitlines() for path in sorted(library.glob("*.py"))]
    texts += [line for lines in sources for line in lines[::5]]
    assigned = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    texts += [f"a{first}{second} b{third}" for first, second, third in zip(*[iter(assigned[::50])] * 3, strict=False)]
    odd = [
        "",
        " ",
        "a  b\tc\nd",
        "é e\u0301 ﬁ Ⅷ ①",
        "😀👩‍👩‍👧",
        "x" * 3000,
        "\u200b\ufeff",
        "\0",
        "\u202eabc",
        "ſ ﷺ ㌀",
    ]
    return [*LINES, *texts, *odd]


def test_the_layers_tokenizer_gives_the_published_ones_ids() -> None:
    published = (REFERENCE / "tokenizer.json").read_text(encoding="utf-8")
    ours, theirs = Tokenizer.from_str(layer_form(published, 4001).text), Tokenizer.from_str(published)
    assert json.loads(published)["normalizer"]["normalizers"][0]["type"] == "Precompiled", "sentencepiece's own"
    assert theirs.padding
    assert theirs.truncation
    theirs.no_padding()
    theirs.no_truncation()
    texts = corpus()
    assert len(texts) > 20_000
    pairs = zip(texts, ours.encode_batch_fast(texts), theirs.encode_batch_fast(texts), strict=True)
    assert [text for text, mine, other in pairs if mine.ids != other.ids and not spells_control(text)] == []


def spells_control(text: str) -> bool:
    return any(piece in text for piece in CONTROL)


@pytest.mark.parametrize("piece", CONTROL)
def test_no_text_reaches_a_control_piece(piece: str) -> None:
    published = (REFERENCE / "tokenizer.json").read_text(encoding="utf-8")
    ids = Tokenizer.from_str(layer_form(published, 4001).text).encode(f"a{piece} {piece} b").ids[1:-1]
    assert not {0, 1, 2, 4000} & set(ids)
    taken = Tokenizer.from_str(published).encode(f"a{piece} {piece} b").ids[1:-1]
    assert {0, 1, 2, 3, 4000} & set(taken), "the published form takes it for the piece"


def test_weights_as_safetensors_make_the_same_layer(repository: Path, tmp_path: Path, layer: Path) -> None:
    arrays = torchfile.read(repository / "pytorch_model.bin")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, repository / "model.safetensors")
    (repository / "pytorch_model.bin").unlink()
    again = make(repository, tmp_path / "again")
    for name in ("model.onnx", "weights.bin", "heads.onnx", "heads.bin", "tokenizer.json"):
        assert (again / name).read_bytes() == (layer / name).read_bytes(), name


def test_weights_beside_the_pinned_ones_are_not_read(repository: Path, tmp_path: Path, layer: Path) -> None:
    arrays = torchfile.read(repository / "pytorch_model.bin")
    alien = {name: np.ascontiguousarray(array) + np.float32(1) for name, array in arrays.items()}
    save_file(alien, repository / "model.safetensors")
    assert (make(repository, tmp_path / "again") / "weights.bin").read_bytes() == (layer / "weights.bin").read_bytes()


def test_a_channel_that_calibration_never_woke_does_not_swamp_a_text(tmp_path: Path) -> None:
    """No factor may be far from 1: a text's activations have one scale for all channels."""
    source, _ = open_source(SMALL, tmp_path, REFERENCE)
    made = make(REFERENCE, tmp_path / "fp32")
    found = smoothing.factors(source, SMALL.geometry, made, made, ["the"])
    assert len(found) == 2 * 5
    for factors in found.values():
        assert 1 / 8 <= factors.min() <= factors.max() <= 8
        assert (np.log2(factors) % 1 == 0).all(), "powers of two, which no processor rounds"


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


def poison(path: Path) -> None:
    """A file of torch's with a number that is none."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"data/5") + 4096
    raw[at : at + 4000] = np.full(1000, np.nan, "<f4").tobytes()
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


def test_a_pickle_that_names_anything_else_is_not_run(tmp_path: Path) -> None:
    import os
    import pickle
    import zipfile

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"weight": Evil()}, protocol=2))
    with pytest.raises(torchfile.TorchFileError, match="which is no tensor"):
        torchfile.read(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_int8_keeps_dense_vectors_and_terms_and_says_where_it_falls_short(tmp_path: Path) -> None:
    easy = replace(SMALL, thresholds=catalog.Thresholds(0.98, 0.9, 0.9, 0.8, sparse_overlap=0.8))
    facts = json.loads((make(REFERENCE, tmp_path / "int8", "int8", easy) / "manifest.json").read_text())
    assert facts["precision"] == "int8"
    assert 0.8 <= facts["parity"]["sparse_overlap"] <= 1
    strict = replace(SMALL, thresholds=catalog.Thresholds(0.999999, 0.9, None, None, sparse_overlap=0.999999))
    with pytest.raises(build.BuildError, match=r"mean_cosine is .* sparse_overlap is .* --precision fp32 passes"):
        make(REFERENCE, tmp_path / "strict", "int8", strict)


def test_weights_that_are_no_numbers_are_refused_in_any_precision(repository: Path, tmp_path: Path) -> None:
    poison(repository / "pytorch_model.bin")
    with pytest.raises(build.BuildError, match="no finite vector"):
        make(repository, tmp_path / "never")


def test_a_matrix_that_does_not_exist_cannot_be_kept_in_float32(tmp_path: Path) -> None:
    with pytest.raises(build.BuildError, match=r"no matrix encoder\.layer\.9\.output\.dense"):
        make(REFERENCE, tmp_path / "never", "int8", replace(SMALL, unquantized=("encoder.layer.9.output.dense",)))


def test_matrices_on_the_measured_list_stay_in_float32(tmp_path: Path) -> None:
    name = "encoder.layer.1.output.dense"
    easy = catalog.Thresholds(0.9, 0.5, None, None)
    kept = make(REFERENCE, tmp_path / "kept", "int8", replace(SMALL, thresholds=easy, unquantized=(name,)))
    import onnx

    kinds = {node.input[1]: node.op_type for node in onnx.load(kept / "model.onnx", load_external_data=False).graph.node
             if len(node.input) > 1}  # fmt: skip
    assert kinds[name] == "MatMul"
    assert kinds["encoder.layer.0.output.dense"] == "MatMulIntegerToFloat"


def test_every_file_of_the_real_repository_is_pinned() -> None:
    assert all(re.fullmatch("[0-9a-f]{64}", str(pin)) for pin in ORIGIN.files.values())


REAL = HOUSE / "model_layer/out/bge-m3"


@pytest.mark.skipif(not (REAL / "manifest.json").is_file(), reason="the real weights are not here: build bge-m3 first")
def test_the_model_cards_example_gives_its_published_similarities() -> None:
    """The card of BAAI/bge-m3, whose figures were made in fp16."""
    queries = ["What is BGE M3?", "Defination of BM25"]
    passages = [
        "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
        (
            "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query terms "
            "appearing in each document"
        ),
    ]
    found = [ours(REAL, ids[0]) for ids in run.token_ids(REAL, queries + passages)]
    dense = np.array([[found[q][0] @ found[p][0] for p in (2, 3)] for q in (0, 1)])
    assert np.abs(dense - [[0.6265, 0.3477], [0.3499, 0.678]]).max() < 0.02
    rows = [each[2] for each in found]
    colbert = [(rows[0] @ rows[p].T).max(axis=1).mean() for p in (2, 3)]
    assert np.abs(np.array(colbert) - [0.7797, 0.4620]).max() < 0.02
    terms = run.outputs(REAL, [queries[0], passages[0]], (0, 1, 2, 3)).sparse
    lexical = sum(weight * terms[1].get(token, 0) for token, weight in terms[0].items())
    assert abs(lexical - 0.19554901123046875) < 0.02
