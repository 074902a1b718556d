"""The vocabulary that is ready at once, held against the library's own, to the last id."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from handler.engine import tokens, unigram
from handler.engine.manifest import TOKENIZER, UNIGRAM, LayerError
from handler.engine.tokens import Tokens
from handler.engine.unigram import Unigram
from model_layer import unigram as writer
from model_layer.tokenizer import layer_form
from tests.model_layer.small import HOUSE, REFERENCE
from tests.model_layer.test_tokenizer import corpus

FOX = [0, 70, 63773, 119455, 6, 147797, 2]


@dataclass(frozen=True)
class Both:
    """A tokenizer in both forms of a layer."""

    text: str
    path: Path

    def ready(self) -> Unigram:
        return Unigram(self.path)

    def library(self) -> Tokenizer:
        return Tokenizer.from_str(self.text)


@pytest.fixture(scope="module", params=["XLM-R's pieces", "sentencepiece's own normalizer"])
def both(request: pytest.FixtureRequest, seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> Both:
    if request.param == "XLM-R's pieces":
        return Both((seeded / TOKENIZER).read_text(encoding="utf-8"), seeded / UNIGRAM)
    text = layer_form((REFERENCE / TOKENIZER).read_text(encoding="utf-8"), 4001).text
    form, path = writer.form(text), tmp_path_factory.mktemp("unigram") / UNIGRAM
    assert form is not None
    path.write_text(form, encoding="utf-8")
    return Both(text, path)


def texts(pieces: list[str]) -> list[str]:
    """Those of the other tokenizer tests; pieces in disorder, with and without spaces between; any characters."""
    draw = random.Random(11)
    bare = [piece.strip(" ▁") for piece in pieces[4:]]

    def mixed(*between: str) -> str:
        return "".join(draw.choice(bare) + draw.choice(between) for _ in range(draw.randint(1, 60)))

    def character() -> str:
        return chr(
            draw.choice([draw.randrange(1, 0x3000), draw.randrange(0x3000, 0xD800), draw.randrange(0x10000, 0x1FFFF)])
        )

    found = [mixed("", " ", "▁") for _ in range(3000)] + [mixed("") for _ in range(1000)]
    found += ["".join(character() for _ in range(draw.randint(1, 80))) for _ in range(3000)]
    ties = ["=" * n for n in range(200)] + ["ab" * n for n in range(60)] + ["\u4e00" * n for n in range(60)]
    return corpus() + found + ties


def test_ids_are_the_librarys(both: Both) -> None:
    ready, library = both.ready(), both.library()
    asked = texts(ready.pieces)
    assert len(asked) > 30_000

    theirs = library.encode_batch_fast(asked)

    pairs = zip(asked, theirs, strict=True)
    assert [each for each, other in pairs if other.ids != [*ready.before, *ready.content(each), *ready.after]] == []


def test_some_of_those_texts_have_pieces_that_are_unknown(both: Both) -> None:
    ready = both.ready()
    unknown = json.loads(both.path.read_text(encoding="utf-8"))["unknown"]

    assert ready.content("a\U00013000\U00013001 b").count(unknown) == 1, "neighbours are one"
    assert ready.content("\U00013000 \U00013001").count(unknown) == 2, "but not over a space"


def test_words_are_forgotten_and_cut_again(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unigram, "_REMEMBERED", 3)
    ready, library = both.ready(), both.library()
    asked = ["one two three four five one two", "six one " + "long" * 50, "seven eight nine ten"] * 2

    for each in asked:
        assert ready.content(each) == library.encode(each, add_special_tokens=False).ids


def test_threads_that_share_it_do_not_disturb_each_other(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unigram, "_REMEMBERED", 50)
    ready, asked = both.ready(), corpus()[:400]
    alone = [ready.content(each) for each in asked]

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: [ready.content(each) for each in asked], range(8)):
            assert found == alone


def test_a_layer_answers_short_texts_before_the_library_has_read_its_own(seeded: Path, tmp_path: Path) -> None:
    shutil.copy(seeded / UNIGRAM, tmp_path)
    ready = Tokens(tmp_path)

    assert ready.encode(["the quick brown fox", ""]) == [FOX, [0, 2]]
    assert ready.content("the quick brown fox") == FOX[1:-1]
    with pytest.raises(LayerError, match=r"tokenizer\.json cannot be read"):
        ready.content("x" * (tokens._SHORT + 1))


@pytest.mark.parametrize("call", [lambda t, text: t.encode([text, text]), lambda t, text: t.content(text)])
def test_a_long_text_has_the_same_ids_from_the_library(
    call: Callable[[Tokens, str], list[int]], seeded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(corpus()[:3000])[:60_000]
    short = call(Tokens(seeded), text)
    monkeypatch.setattr(tokens, "_SHORT", 1000)

    with ThreadPoolExecutor(4) as pool:  # all of which find it not loaded yet
        shared = Tokens(seeded)
        assert list(pool.map(lambda _: call(shared, text), range(4))) == [short] * 4


@pytest.mark.parametrize("damage", ["", "{}", '{"pieces": "a\\nb", "scores": ""}', "[" * 100_000])
def test_a_damaged_file_is_named(damage: str, tmp_path: Path) -> None:
    (tmp_path / UNIGRAM).write_text(damage)

    with pytest.raises(LayerError, match=r"unigram\.json cannot be read: .* Build the layer again"):
        Tokens(tmp_path)


def test_a_vocabulary_of_another_kind_has_no_such_form(minilm: Path) -> None:
    assert writer.form((minilm / TOKENIZER).read_text()) is None
    assert not (minilm / UNIGRAM).exists()


MEMORY = """
import sys, time
from pathlib import Path
import numpy, tokenizers
from tests.engine.conftest import peak_kib
{imports}
before, start = peak_kib(), time.perf_counter()
kept = {load}
print(time.perf_counter() - start, peak_kib() - before)
"""


def test_it_is_ready_in_a_fraction_of_the_time_and_memory(seeded: Path, measured: Callable[[str], None]) -> None:
    def cost(imports: str, load: str) -> tuple[float, float]:
        code = MEMORY.format(imports=imports, load=load)
        runs = [
            subprocess.run([sys.executable, "-c", code], cwd=HOUSE, capture_output=True, text=True, check=True)
            for _ in range(2)
        ]
        seconds, kib = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
        return min(seconds) * 1e3, min(kib) / 1024

    ready = cost("from handler.engine.tokens import Tokens", f"Tokens(Path({str(seeded)!r}))")
    library = cost("", f"tokenizers.Tokenizer.from_file({str(seeded / TOKENIZER)!r})")

    measured(
        "250,002 pieces are ready in {:.0f} ms and {:.0f} MiB, the library's own in {:.0f} ms and {:.0f} MiB".format(
            *ready, *library
        )
    )
    assert ready[1] < library[1] / 2
