import subprocess
import sys
from pathlib import Path

import pytest

from handler.engine.engine import Engine
from handler.engine.tokens import TextTooLongError, Tokens, TooManyTokensError


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


def test_more_text_than_memory_allows_at_once_is_tokenized_in_groups(engine: Engine) -> None:
    texts = ["alpha " * 30_000, "beta", "gamma " * 150_000, "", "delta " * 90_000]
    alone = [engine.tokens.encode([text])[0] for text in texts]
    assert engine.tokens.encode(texts) == alone
    assert [len(ids) for ids in alone] == [30_002, 3, 150_002, 2, 90_002]


def test_a_text_that_is_too_long_is_refused_with_its_number(engine: Engine) -> None:
    with pytest.raises(TextTooLongError) as caught:
        engine.tokens.encode(["short", "word " * 1_000_000], each=254, total=300_000)
    assert (caught.value.index, caught.value.tokens) == (1, 1_000_000)


def test_too_many_tokens_are_refused_with_their_number(engine: Engine) -> None:
    with pytest.raises(TooManyTokensError) as caught:
        engine.tokens.encode(["word " * 250] * 1300, each=254, total=300_000)
    assert caught.value.tokens == 325_000


def test_a_very_long_text_takes_little_memory(minilm: Path) -> None:
    """30 MB, half of what a request may hold: whole, it took 3.4 GB. (VmHWM is the process's own peak; ru_maxrss would
    be that of the one which started it, if that was larger.)"""
    code = f"""
from pathlib import Path
from handler.engine.tokens import TextTooLongError, Tokens
tokens = Tokens(Path({str(minilm)!r}))
try:
    tokens.encode(["word " * 6_000_000], each=254, total=300_000)
except TextTooLongError as error:
    print(error.tokens)
print(int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]))
"""
    house = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=house, capture_output=True, text=True, check=True)
    counted, peak = done.stdout.split()
    assert counted == "6000000"
    assert int(peak) < 1_200_000, f"{int(peak) / 1e6:.2f} GB"
