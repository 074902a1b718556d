"""The vocabulary of OpenAI's token ids, held against tiktoken's own reading of it."""

import random
from pathlib import Path

import pytest
import tiktoken

from handler.engine.cl100k import Cl100k
from handler.engine.tokens import UnknownTokenError

TEXTS = [
    *(Path(__file__).resolve().parents[2] / "model_layer/texts/pairs.txt").read_text().splitlines()[:50],
    "",
    "the quick brown fox",
    "Größe, 数字, быстрая лиса, दस, ภาษาไทย, 🚀👩‍👩‍👧‍👦",
    "def f(x):\n\treturn x  # code\n" * 20,
    " " * 300 + "\n\n\n\t\t" + "\r\n",
    "a\0b\ufeffc\u200d",
    "<|endoftext|> </s> [SEP]",
]


@pytest.fixture(scope="module")
def vocabulary(minilm: Path) -> Cl100k:
    return Cl100k(minilm)


def decode(vocabulary: Cl100k, ids: list[int]) -> str:
    vocabulary.check([ids])
    return vocabulary.decode(ids)


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: repr(text[:20]))
def test_a_texts_ids_are_the_text_again(vocabulary: Cl100k, tiktoken_cl100k: tiktoken.Encoding, text: str) -> None:
    assert decode(vocabulary, tiktoken_cl100k.encode(text, disallowed_special=())) == text


def test_every_id_is_what_tiktoken_makes_of_it(vocabulary: Cl100k, tiktoken_cl100k: tiktoken.Encoding) -> None:
    named = {100257, 100258, 100259, 100260, 100276}
    for token in [*range(100_256), *named]:
        assert decode(vocabulary, [token]) == tiktoken_cl100k.decode([token])
    assert tiktoken_cl100k.max_token_value == max(named)


def test_any_ids_at_all_are_what_tiktoken_makes_of_them(vocabulary: Cl100k, tiktoken_cl100k: tiktoken.Encoding) -> None:
    """Most of them are no UTF-8 where they meet."""
    chance = random.Random(3)
    for _ in range(500):
        ids = [chance.randrange(100_256) for _ in range(chance.randrange(1, 60))]
        assert decode(vocabulary, ids) == tiktoken_cl100k.decode(ids)


def test_a_text_cut_inside_a_character_ends_in_the_replacement_character(
    vocabulary: Cl100k, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    ids = tiktoken_cl100k.encode("fox \U00013000")
    assert decode(vocabulary, ids[:-1]) == "fox \ufffd"
    assert decode(vocabulary, ids) == "fox \U00013000"


def test_names_are_what_special_ids_are(vocabulary: Cl100k) -> None:
    assert decode(vocabulary, [100257, 100258, 100259, 100260, 100276]) == (
        "<|endoftext|><|fim_prefix|><|fim_middle|><|fim_suffix|><|endofprompt|>"
    )


@pytest.mark.parametrize("token", [-1, 100256, 100261, 100275, 100277, 2**63, -(10**300)])
def test_another_id_is_named_with_its_place(vocabulary: Cl100k, token: int) -> None:
    with pytest.raises(UnknownTokenError) as caught:
        vocabulary.check([[1, 2], [3, 4, token, token], [token]])
    assert (caught.value.index, caught.value.position, caught.value.token) == (1, 2, token)


def test_it_is_read_when_it_is_first_needed(tmp_path: Path) -> None:
    absent = Cl100k(tmp_path)
    with pytest.raises(FileNotFoundError):
        absent.check([[1]])
