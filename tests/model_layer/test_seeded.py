"""bge-m3's geometry with seeded weights, and XLM-R's tokenizer without the hub."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from model_layer import parity, run, xlmr
from model_layer.catalog import MODELS, Texts
from model_layer.sources import Seeded
from tests.model_layer.test_tokenizer import corpus, spells_control

LINES = (Path(__file__).parent / "scripts.txt").read_text(encoding="utf-8").splitlines()


def initializers(layer: Path) -> dict[str, tuple[int, ...]]:
    graph = onnx.load(layer / "model.onnx", load_external_data=False).graph
    return {each.name: tuple(each.dims) for each in graph.initializer}


def test_it_has_bge_m3s_exact_geometry(seeded: Path) -> None:
    assert MODELS["bge-m3-seeded"].geometry.layers == 24
    shapes = initializers(seeded)
    assert shapes["word_embeddings"] == (250_002, 1024)
    assert shapes["position_embeddings"] == (8194, 1024)
    assert shapes["encoder.layer.1.intermediate.dense"] == (1024, 4096)
    assert shapes["encoder.layer.1.output.dense"] == (4096, 1024)
    assert "encoder.layer.2.intermediate.dense" not in shapes


def test_positions_start_at_two_so_that_8192_tokens_use_the_last_row(seeded: Path) -> None:
    graph = onnx.load(seeded / "model.onnx", load_external_data=False).graph
    [first] = [onnx.numpy_helper.to_array(each) for each in graph.initializer if each.name == "first_position"]
    assert first.tolist() == [2]
    facts = json.loads((seeded / "manifest.json").read_text())
    assert facts["context"] == 8192 == 8194 - 2


def test_one_token_more_than_the_context_has_no_position(seeded: Path) -> None:
    session = run.session(seeded / "model.onnx")
    with pytest.raises(Exception, match="must be within the inclusive range"):
        session.run(["dense"], run.feed(np.full(8193, 70)))


def test_cls_is_what_is_pooled(seeded: Path) -> None:
    session = run.session(seeded / "model.onnx")
    [ids] = run.token_ids(seeded, ["the quick brown fox"])
    dense, states = session.run(["dense", "token_states"], run.feed(ids))
    assert np.abs(dense[0] - states[0, 0] / np.linalg.norm(states[0, 0])).max() < 1e-6


def test_the_layer_says_that_its_vectors_mean_nothing(seeded: Path) -> None:
    facts = json.loads((seeded / "manifest.json").read_text())
    assert facts["weights"] == "seeded"
    assert "mean nothing" in facts["description"]
    assert "BAAI/bge-m3" not in facts["aliases"]


def test_seeded_arrays_are_the_same_in_any_order_of_asking() -> None:
    first, second = Seeded(), Seeded()
    name = "encoder.layer.0.attention.self.query.weight"
    other = first.tensor("encoder.layer.0.attention.self.key.weight", 64, 64)
    assert (first.tensor(name, 64, 64) == second.tensor(name, 64, 64)).all()
    assert (first.tensor(name, 64, 64) != other).any()


@pytest.fixture(scope="module")
def tokenizer(seeded: Path) -> Tokenizer:
    return Tokenizer.from_file(str(seeded / "tokenizer.json"))


def test_pieces_stand_at_xlm_rs_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() == 250_002
    assert tokenizer.encode("the quick brown fox", add_special_tokens=False).ids == [70, 63773, 119455, 6, 147797]
    assert tokenizer.encode("a", add_special_tokens=True).ids[::2] == [0, 2]


@pytest.mark.parametrize("name", ["calibration", "verification"])
def test_bge_m3s_texts_reach_from_a_few_tokens_to_two_thousand(seeded: Path, name: str) -> None:
    texts: Texts = getattr(MODELS["bge-m3"], name)
    lengths = sorted(len(ids) - 2 for ids in run.token_ids(seeded, parity.texts(texts)))
    assert lengths[0] <= 8
    assert 1900 <= lengths[-1] <= 2000
    assert sum(length >= 500 for length in lengths) >= 6


def test_ids_agree_with_blingfires_compiled_automaton_of_xlm_r(tokenizer: Tokenizer) -> None:
    """On 420 lines of 22 languages in 16 scripts. Where they differ it is by near ties between scores."""
    import blingfire

    automaton = blingfire.load_model(str(Path(blingfire.__file__).parent / "xlm_roberta_base.bin"))
    ours = [each.ids for each in tokenizer.encode_batch_fast(LINES, add_special_tokens=False)]
    theirs = [list(map(int, blingfire.text_to_ids(automaton, line, 8192, no_padding=True))) for line in LINES]
    blingfire.free_model(automaton)
    assert len(LINES) >= 400
    assert np.mean([a == b for a, b in zip(ours, theirs, strict=True)]) >= 0.96
    assert np.mean([len(a) == len(b) for a, b in zip(ours, theirs, strict=True)]) >= 0.99


def test_the_layers_form_changes_no_id_of_ordinary_text(tokenizer: Tokenizer) -> None:
    plain, texts = Tokenizer.from_str(xlmr.tokenizer()), [text for text in corpus()[::2] if not spells_control(text)]
    assert len(texts) > 10_000
    pairs = zip(texts, tokenizer.encode_batch_fast(texts), plain.encode_batch_fast(texts), strict=True)
    assert [text for text, mine, other in pairs if mine.ids != other.ids] == []
