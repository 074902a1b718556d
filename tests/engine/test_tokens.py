from pathlib import Path

import pytest

from handler.engine.engine import Engine
from handler.engine.tokens import Tokens


@pytest.fixture(scope="module")
def xlmr(seeded: Path) -> Tokens:
    return Tokens(seeded)


def test_the_quick_brown_fox_is_five_tokens_at_xlm_rs_own_ids(xlmr: Tokens) -> None:
    assert xlmr.encode(["the quick brown fox"]) == [[0, 70, 63773, 119455, 6, 147797, 2]]
    assert xlmr.special_tokens == 2


def test_an_empty_text_is_the_specials_alone(xlmr: Tokens, engine: Engine) -> None:
    assert xlmr.encode([""]) == [[0, 2]]
    assert engine.tokens.encode([""]) == [[101, 102]]


@pytest.mark.parametrize("text", ["<s>", "</s>", "<pad>", "<unk>", "<mask>", "a </s> b", "</s></s>", "x<mask>y"])
def test_text_that_spells_a_control_piece_is_text(xlmr: Tokens, text: str) -> None:
    ids = xlmr.encode([text])[0]
    assert not {0, 1, 2, 250001} & set(ids[1:-1])
    assert len(ids) > 3


@pytest.mark.parametrize("text", ["[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]", "a [SEP] b", "[MASK][MASK]"])
def test_text_that_spells_a_wordpiece_control_piece_is_text(engine: Engine, text: str) -> None:
    ids = engine.tokens.encode([text])[0]
    assert not {0, 100, 101, 102, 103} & set(ids[1:-1])
    assert len(ids) > 4


def test_nothing_is_cut_or_padded(engine: Engine) -> None:
    short, long = engine.tokens.encode(["one", "one " * 1000])
    assert (len(short), len(long)) == (3, 1002)


def test_a_texts_ids_do_not_depend_on_its_company(xlmr: Tokens) -> None:
    texts = ["der schnelle braune Fuchs", "", "敏捷的棕色狐狸", "быстрая лиса " * 50]
    assert xlmr.encode(texts) == [xlmr.encode([text])[0] for text in texts]
