"""tokenizer.json as the hub has it, in the layer's form."""

import json
import sysconfig
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from model_layer.tokenizer import TokenizerError, layer_form
from tests.model_layer.small import HOUSE, REFERENCE

CONTROL = ("<s>", "</s>", "<pad>", "<unk>", "<mask>")


LINES = (Path(__file__).parent / "scripts.txt").read_text(encoding="utf-8").splitlines()


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
    texts = [*corpus(), "the " * 9000]  # the last longer than the published one cuts at
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
    assert max(ids) < 4001, "no piece was added behind the vocabulary"
    taken = Tokenizer.from_str(published).encode(f"a{piece} {piece} b").ids[1:-1]
    assert {0, 1, 2, 3, 4000} & set(taken), "the published form takes it for the piece"


def test_the_layers_form_says_how_many_tokens_and_pieces_are_its_own() -> None:
    made = layer_form((REFERENCE / "tokenizer.json").read_text(encoding="utf-8"), 4001)
    assert (made.special_tokens, made.control_ids) == (2, (0, 1, 2, 3, 4000))
    assert json.loads(made.text)["truncation"] is json.loads(made.text)["padding"] is None
    tokenizer = Tokenizer.from_str(made.text)
    assert len(tokenizer.encode("the " * 9000).ids) == 9002, "a text is refused, never cut"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: values.pop("added_tokens"),
        lambda values: values.update(added_tokens=[{"id": [], "content": "x", "special": True}]),
        lambda values: values["model"].pop("unk_id"),
        lambda values: values["model"].update(vocab=7),
        lambda values: values.update(model=[]),
        lambda values: values.update(post_processor=7),
    ],
)
def test_a_tokenizer_that_is_none_is_refused_in_words(spoil: Any) -> None:
    values = json.loads((REFERENCE / "tokenizer.json").read_text(encoding="utf-8"))
    spoil(values)
    with pytest.raises(TokenizerError):
        layer_form(json.dumps(values), 4001)
