"""What the engine is given for a request: whole inputs, heads, windows; and what is refused for its length."""

import random
import subprocess
import sys
import time
from array import array
from collections.abc import Iterable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import tiktoken

from handler.engine import prompts
from handler.engine.budget import Budget, LateError, Run
from handler.engine.cl100k import Cl100k
from handler.engine.engine import Engine
from handler.engine.pace import Pace
from handler.engine.prompts import Bounds, Prompts, TextTooLongError, TooManyTokensError
from handler.engine.tokens import Tokens, UnknownTokenError
from tests.engine.conftest import HOUSE

ANY = Bounds(10_000_000, 10_000_000)
MINILM = Bounds(254, 300_000)
CUT = Bounds(254, 300_000, truncate=True)


@pytest.fixture(scope="module")
def xlmr(seeded: Path) -> Tokens:
    return Tokens(seeded)


@pytest.fixture(scope="module")
def vocabulary(minilm: Path) -> Cl100k:
    return Cl100k(minilm)


def runs(ids: Iterable[list[int]]) -> list[Run]:
    return [array("i", each) for each in ids]


def of_texts(engine: Engine, texts: list[str], bounds: Bounds) -> Prompts:
    return prompts.of_texts(engine.tokens, texts, bounds)


# Whole, or not at all


def test_a_text_is_one_run_and_its_tokens_are_counted_without_the_specials(engine: Engine) -> None:
    texts = ["the quick brown fox", "", "jumps"]
    assert of_texts(engine, texts, MINILM) == Prompts(runs(engine.tokens.encode(texts)), 5)


@pytest.mark.parametrize(
    "sizes", [[0, 600_000], [600_000, 0], [0, 0, 499_999, 2], [300_000, 300_000], [500_000, 1], [0], [1] * 5]
)
def test_no_group_of_several_texts_has_more_characters_than_memory_allows(sizes: list[int]) -> None:
    texts = ["x" * size for size in sizes]
    groups = list(prompts._groups(texts))
    assert [text for group in groups for text in group] == texts
    assert all(len(group) == 1 or sum(map(len, group)) <= 500_000 for group in groups)


def test_more_text_than_memory_allows_at_once_is_tokenized_in_groups(engine: Engine) -> None:
    texts = ["alpha " * 30_000, "beta", "gamma " * 150_000, "", "delta " * 90_000]
    found = of_texts(engine, texts, ANY)
    assert found.ids == runs(engine.tokens.encode([text])[0] for text in texts)
    assert [len(ids) for ids in found.ids] == [30_002, 3, 150_002, 2, 90_002]
    assert found.tokens == 270_001


@pytest.mark.parametrize("words", [255, 1_000_000])
def test_a_text_that_is_too_long_is_refused_with_its_number(engine: Engine, words: int) -> None:
    with pytest.raises(TextTooLongError) as caught:
        of_texts(engine, ["short", "word " * words, "word " * 300], MINILM)
    assert (caught.value.index, caught.value.tokens) == (1, words)


def test_too_many_tokens_are_refused_with_their_number(engine: Engine) -> None:
    assert of_texts(engine, ["word " * 250] * 1200, MINILM).tokens == 300_000
    with pytest.raises(TooManyTokensError) as caught:
        of_texts(engine, ["word " * 250] * 1300, MINILM)
    assert caught.value.tokens == 325_000


@pytest.mark.parametrize("truncate", [False, True])
def test_a_very_long_text_takes_little_memory(minilm: Path, truncate: bool) -> None:
    """30 MB, half of what a request may hold: whole, it took 3.4 GB."""
    code = f"""
from pathlib import Path
from handler.engine import prompts
from handler.engine.tokens import Tokens
from tests.engine.conftest import peak_kib
tokens = Tokens(Path({str(minilm)!r}))
try:
    print(prompts.of_texts(tokens, ["word " * 6_000_000], prompts.Bounds(254, 300_000, {truncate})).tokens)
except prompts.TextTooLongError as error:
    print(error.tokens)
print(peak_kib())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, check=True)
    counted, peak = done.stdout.split()
    assert counted == ("254" if truncate else "6000000")
    assert int(peak) < 1_200_000, f"{int(peak) / 1e6:.2f} GB"


# Heads


def test_a_text_that_is_to_be_cut_keeps_its_head_and_is_listed(engine: Engine) -> None:
    texts = [f"{'word ' * 253}fits", "short", f"{'word ' * 253}fits not", "", "other " * 400]
    found = of_texts(engine, texts, CUT)
    heads = engine.tokens.encode([texts[0], texts[1], f"{'word ' * 253}fits", "", "other " * 254])
    assert found == Prompts(runs(heads), 254 + 1 + 254 + 254, truncated=(2, 4))


@pytest.mark.parametrize("layer", ["minilm", "seeded"])
def test_the_head_of_a_very_long_text_is_the_head_of_its_whole(layer: str, request: pytest.FixtureRequest) -> None:
    tokens = Tokens(request.getfixturevalue(layer))
    chance = random.Random(5)
    words = ["lake", "Größe", "数字数字", "unbelievable", "лиса", "x" * 30, "3.14", "🚀"]
    text = " ".join(chance.choices(words, k=120_000))
    assert len(text) > 600_000
    whole = tokens.content(text)
    for each in (1, 254, 8190, len(whole) - 1):
        found = prompts.of_texts(tokens, ["", text], Bounds(each, 10_000_000, truncate=True))
        assert [*found.ids[1]] == tokens.framed(whole[:each])
        assert (found.tokens, found.truncated) == (each, (1,))
    fitting = prompts.of_texts(tokens, [text], Bounds(len(whole), 10_000_000, truncate=True))
    assert (fitting.ids, fitting.truncated) == (runs([tokens.framed(whole)]), ())


def test_the_limit_of_a_request_is_held_against_what_is_left_after_the_cut(engine: Engine) -> None:
    found = of_texts(engine, ["word " * 1000] * 1181, CUT)
    assert (found.tokens, len(found.truncated)) == (299_974, 1181)
    with pytest.raises(TooManyTokensError) as caught:
        of_texts(engine, ["word " * 1000] * 1182, CUT)
    assert caught.value.tokens == 300_228


# cl100k


def of_cl100k(engine: Engine, vocabulary: Cl100k, arrays: list[list[int]], bounds: Bounds) -> Prompts:
    return prompts.of_cl100k(engine.tokens, vocabulary, arrays, bounds)


def test_ids_are_prompts_of_their_text(engine: Engine, vocabulary: Cl100k, tiktoken_cl100k: tiktoken.Encoding) -> None:
    texts = ["the quick brown fox", "Größe 数字 🚀", "\n", "<|endoftext|>", "</s> [SEP]"]
    arrays = tiktoken_cl100k.encode_batch(texts, disallowed_special=())
    assert of_cl100k(engine, vocabulary, arrays, MINILM) == of_texts(engine, texts, MINILM)


def test_what_is_within_openais_context_and_beyond_the_models_is_cut_into_windows(
    engine: Engine, vocabulary: Cl100k, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    texts = ["word " * 254, "word " * 600, "short", "word " * 255]
    arrays = tiktoken_cl100k.encode_batch(texts)
    found = of_cl100k(engine, vocabulary, arrays, MINILM)
    assert [len(ids) for ids in found.ids] == [256, 256, 256, 94, 3, 256, 3]
    assert (found.tokens, found.truncated, found.averaged) == (254 + 600 + 1 + 255, (), (1, 3))
    assert [found.input_of(run) for run in range(7)] == [0, 1, 1, 1, 2, 3, 3]
    content = engine.tokens.content(texts[1])
    assert [id_ for ids in found.ids[1:4] for id_ in engine.tokens.unframed([*ids])] == content
    for ids in found.ids:
        assert (ids[0], ids[-1]) == (101, 102)


def test_an_averaged_vector_is_what_langchain_makes_of_the_parts_of_a_text(
    engine: Engine, vocabulary: Cl100k, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    words = random.Random(9).choices(
        ["lake", "water", "hills", "cold", "old", "time", "built", "nobody", "long", "very"], k=600
    )
    texts = ["a text before", " ".join(words), "a text behind"]
    found = of_cl100k(engine, vocabulary, tiktoken_cl100k.encode_batch(texts), MINILM)
    vectors = found.vectors(engine.encode(found.ids))
    parts = [" ".join(words[start : start + 254]) for start in range(0, 600, 254)]
    rows = engine.encode(engine.tokens.encode(parts)).astype(np.float64)
    mean = np.average(rows, axis=0, weights=[254, 254, 92])
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 384)
    assert np.abs(vectors[1] - mean / np.linalg.norm(mean)).max() < 1e-7
    alone = engine.encode(engine.tokens.encode([texts[0], texts[2]]))
    assert vectors[[0, 2]].tobytes() == alone.tobytes()


def test_beyond_openais_context_only_what_fits_the_model_is_taken(
    engine: Engine, vocabulary: Cl100k, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    [word] = tiktoken_cl100k.encode(" word")
    assert len(of_cl100k(engine, vocabulary, [[word] * 8192], MINILM).ids) == 33
    with pytest.raises(TextTooLongError) as caught:
        of_cl100k(engine, vocabulary, [[word], [word] * 8193], MINILM)
    assert (caught.value.index, caught.value.tokens) == (1, 8193)
    [blank] = tiktoken_cl100k.encode(" ")
    assert of_cl100k(engine, vocabulary, [[blank] * 9000], MINILM).tokens == 0


def test_ids_that_are_to_be_cut_keep_their_head(
    engine: Engine, vocabulary: Cl100k, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    texts = ["short", "word " * 600, "word " * 9000]
    arrays = tiktoken_cl100k.encode_batch(texts)
    assert of_cl100k(engine, vocabulary, arrays, CUT) == of_texts(engine, texts, CUT)


def test_the_limit_of_a_request_is_held_against_the_ids_that_were_sent(xlmr: Tokens, vocabulary: Cl100k) -> None:
    """By them its client has packed it; of the text that they spell the model makes another number of pieces."""
    bounds = Bounds(8190, 300_000)
    arrays = [[0] * 8000] * 37 + [[0] * 4000]
    assert prompts.of_cl100k(xlmr, vocabulary, arrays, bounds).tokens != 300_000
    with pytest.raises(TooManyTokensError) as caught:
        prompts.of_cl100k(xlmr, vocabulary, [*arrays, [0]], bounds)
    assert caught.value.tokens == 300_001


def test_of_a_request_with_too_many_ids_a_longer_input_is_named_first(
    engine: Engine, vocabulary: Cl100k, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    [word] = tiktoken_cl100k.encode(" word")
    with pytest.raises(TextTooLongError) as caught:
        of_cl100k(engine, vocabulary, [[word] * 8000, [word] * 400_000], MINILM)
    assert (caught.value.index, caught.value.tokens) == (1, 400_000)
    with pytest.raises(TooManyTokensError) as many:
        of_cl100k(engine, vocabulary, [[word] * 8000, [word] * 400_000], CUT)
    assert many.value.tokens == 408_000
    with pytest.raises(UnknownTokenError):
        of_cl100k(engine, vocabulary, [[word] * 400_000, [100256]], MINILM)


# Time and memory: 300,000 ids may spell 38 million tokens


def spelling(vocabulary: Cl100k) -> tuple[int, list[list[int]]]:
    """An id that is 114 pieces, and arrays within every limit of it and of others, so that no two windows are alike."""
    [rule] = (token for token, piece in vocabulary._pieces.items() if piece == b"//" + b"-" * 112)
    others = range(1000, 100_000)
    return rule, [
        [others[(start + n) % len(others)] if n % 3 == 0 else rule for n in range(8192)]
        for start in range(0, 36 * 8192, 8192)
    ]


def test_what_ids_spell_is_counted_until_it_is_more_than_can_be_done_and_no_further(
    engine: Engine, vocabulary: Cl100k
) -> None:
    _, arrays = spelling(vocabulary)
    pace = Pace(384)
    pace.measured(1_000_000, 100)  # a million in all the time there is
    with pytest.raises(LateError) as caught:
        prompts.of_cl100k(engine.tokens, vocabulary, arrays, MINILM, Budget(pace, None, 100))
    assert not caught.value.again
    assert 300_000 < caught.value.tokens < 2_000_000


def test_alike_windows_are_work_once(engine: Engine, vocabulary: Cl100k) -> None:
    rule, _ = spelling(vocabulary)
    budget = Budget(Pace(384), None, 100)
    found = prompts.of_cl100k(engine.tokens, vocabulary, [[rule] * 8000] * 2, MINILM, budget)
    assert found.tokens == 2 * 8000 * 114
    assert len(found.ids) > 7000
    assert budget.cost < 100 * 512, "57 windows, and the ends"


@pytest.mark.parametrize(("before", "again"), [(50, False), (350, True)], ids=["own", "others'"])
def test_at_the_deadline_tokenizing_ends_and_it_counts_whose_the_time_was(
    engine: Engine, vocabulary: Cl100k, monkeypatch: pytest.MonkeyPatch, before: int, again: bool
) -> None:
    """Of 400 seconds, which pass at a hundred a look, so many went by before the request was read."""
    clock = count(0, 100)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    _, arrays = spelling(vocabulary)
    budget = Budget(Pace(384), 400 - before, 400)
    with pytest.raises(LateError) as caught:
        prompts.of_cl100k(engine.tokens, vocabulary, arrays, MINILM, budget)
    assert caught.value.again == again
    assert caught.value.tokens < 5_000_000, "four arrays of 36"


@pytest.mark.parametrize("text", ["word " * 1_000_000, "word"])
def test_text_too_is_read_no_longer_than_until_the_deadline(engine: Engine, text: str) -> None:
    with pytest.raises(LateError):
        prompts.of_texts(engine.tokens, [text], MINILM, Budget(Pace(384), time.monotonic(), 1))


@pytest.mark.parametrize("tokens_a_second", [0, 5000], ids=["nothing measured", "measured"])
def test_what_ids_spell_takes_little_memory(minilm: Path, tokens_a_second: int) -> None:
    """In lists of integers it took 2.5 GB: of a body of 2 MB, and of eight such at once."""
    code = f"""
from pathlib import Path
from handler.engine import prompts
from handler.engine.budget import Budget, LateError
from handler.engine.cl100k import Cl100k
from handler.engine.pace import Pace
from handler.engine.tokens import Tokens
from tests.engine.conftest import peak_kib
from tests.engine.test_prompts import MINILM, spelling
tokens, vocabulary, pace = Tokens(Path({str(minilm)!r})), Cl100k(Path({str(minilm)!r})), Pace(384)
pace.measured({tokens_a_second}, 1)
_, arrays = spelling(vocabulary)
before = peak_kib()
try:
    print(prompts.of_cl100k(tokens, vocabulary, arrays, MINILM, Budget(pace, None, 600)).tokens)
except LateError as error:
    print(error.tokens)
print(peak_kib() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, check=True)
    counted, peak = map(int, done.stdout.split())
    assert 1_500_000 < counted < 4_000_000 if tokens_a_second else counted > 22_000_000
    assert peak < (400_000 if tokens_a_second else 900_000), f"{peak / 1e6:.2f} GB"


# The model's own ids


def test_own_ids_are_run_as_they_are_and_never_in_windows(engine: Engine) -> None:
    contents = [engine.tokens.content("the quick brown fox"), [], [1996] * 254]
    found = prompts.of_contents(engine.tokens, contents, MINILM)
    assert found == Prompts(runs(engine.tokens.framed(content) for content in contents), 258)
    with pytest.raises(TextTooLongError) as caught:
        prompts.of_contents(engine.tokens, [*contents, [1996] * 255], MINILM)
    assert (caught.value.index, caught.value.tokens) == (3, 255)
    cut = prompts.of_contents(engine.tokens, [[1996] * 255], CUT)
    assert cut == Prompts(runs([engine.tokens.framed([1996] * 254)]), 254, truncated=(0,))
