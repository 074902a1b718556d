from dataclasses import dataclass
from pathlib import Path

import pytest

from handler.engine import manifest
from handler.engine.engine import Engine
from handler.engine.tokens import Tokens, UnknownTokenError


@dataclass(frozen=True)
class Own:
    """A tokenizer, and which of its pieces are for no text."""

    tokens: Tokens
    control_ids: tuple[int, ...]

    def contents(self, *arrays: list[int]) -> list[list[int]]:
        return self.tokens.contents(arrays, self.control_ids)


@pytest.fixture(scope="module")
def xlmr(seeded: Path) -> Tokens:
    return Tokens(seeded)


def test_the_quick_brown_fox_is_five_tokens_at_xlm_rs_own_ids(xlmr: Tokens) -> None:
    assert xlmr.encode(["the quick brown fox"]) == [[0, 70, 63773, 119455, 6, 147797, 2]]
    assert xlmr.special_tokens == 2


@pytest.mark.parametrize("layer", ["minilm", "minilm_fp32", "seeded"])
def test_the_special_tokens_are_no_tokens_of_a_text(layer: str, request: pytest.FixtureRequest) -> None:
    tokens = Tokens(request.getfixturevalue(layer))
    for text in ("the quick brown fox", "", "\n", "Größe 数字 🚀", "a\0b", "word " * 300):
        [framed], content = tokens.encode([text]), tokens.content(text)
        assert len(framed) - tokens.special_tokens == len(content)
        assert content == tokens.unframed(framed)


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


# Ids of the model's own


@pytest.fixture(params=["xlmr", "wordpiece"])
def own(request: pytest.FixtureRequest, seeded: Path, minilm: Path) -> Own:
    layer = seeded if request.param == "xlmr" else minilm
    return Own(Tokens(layer), manifest.load(layer).control_ids)


def test_the_special_tokens_around_a_text_may_be_there_or_not(own: Own) -> None:
    [framed] = own.tokens.encode(["the quick brown fox"])
    content = own.tokens.content("the quick brown fox")
    for sent in (framed, content, framed[:-1], framed[1:]):
        assert own.contents(sent) == [content]
    assert own.tokens.framed(content) == framed
    assert own.tokens.unframed(framed) == content


def test_special_tokens_around_nothing_are_the_empty_text(own: Own) -> None:
    first, last = own.tokens.encode([""])[0]
    for sent in ([first], [last], [first, last]):
        assert own.contents(sent) == [[]]


def test_one_of_each_is_taken_off_and_a_second_one_refused(own: Own) -> None:
    first, last = own.tokens.encode([""])[0]
    content = own.tokens.content("fox")
    for sent, position in (
        ([first, first, *content, last], 1),
        ([first, *content, last, last], 1 + len(content)),
        ([last, *content], 0),
        ([*content, first], len(content)),
        ([last, first], 0),
    ):
        assert refused(own, sent) == (0, position, sent[position])


def test_a_control_piece_is_refused_but_for_the_one_of_what_is_unknown(own: Own) -> None:
    [unknown] = own.tokens.content("\U00013000")[-1:]
    first, last = own.tokens.encode([""])[0]
    content = own.tokens.content("fox")
    assert unknown in own.control_ids
    assert own.contents([*content, unknown]) == [[*content, unknown]]
    for control in set(own.control_ids) - {unknown, first, last}:
        assert refused(own, [*content, control]) == (0, len(content), control)


def test_an_id_outside_the_vocabulary_is_refused_wherever_it_is(own: Own) -> None:
    size = {2: 250_002, 102: 30_522}[own.tokens.encode([""])[0][1]]
    content = own.tokens.content("fox")
    assert own.contents([size - 2]) == [[size - 2]]
    for wrong in (-1, size, 10**300):
        assert refused(own, content, [*content, wrong]) == (1, len(content), wrong)


def refused(own: Own, *arrays: list[int]) -> tuple[int, int, int]:
    with pytest.raises(UnknownTokenError) as caught:
        own.contents(*arrays)
    return caught.value.index, caught.value.position, caught.value.token
