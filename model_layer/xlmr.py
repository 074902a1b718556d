"""XLM-R's tokenizer without a model hub: its 250,002 pieces at their own ids, read from the blingfire wheel.

The wheel has the pieces but not their probabilities. Unigram log-probabilities fall with rank and XLM-R's ids are
sorted by them, so a curve through a few known points serves: ids equal those of blingfire's compiled automaton on 97
to 98 % of lines, counts on 99.5 % (tests/model_layer/test_seeded.py).
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

SIZE = 250_002
CONTROL = {0: "<s>", 1: "<pad>", 2: "</s>", 3: "<unk>", 250_001: "<mask>"}
_COMMA, _SPACE = 4, 6  # ids of "," and of the bare "▁"

# (id, log-probability), log-linear in the id between the points and with this slope beyond the last.
_CURVE = (
    (4, -3.46), (5, -3.63), (6, -3.93), (7, -5.07), (10, -5.53), (100, -7.51), (1000, -9.464), (5000, -10.887),
    (10000, -11.439), (20000, -12.001), (28022, -12.2817),
)  # fmt: skip
_SLOPE = -0.811


def _score(piece: int) -> float:
    ids, values = zip(*_CURVE, strict=True)
    if piece > ids[-1]:
        return float(values[-1] + _SLOPE * math.log(piece / ids[-1]))
    return float(np.interp(math.log(piece), np.log(ids), values))


def pieces() -> Iterator[tuple[str, float]]:
    """Every piece with its score, in order of its id."""
    import blingfire

    words = blingfire.load_model(str(Path(blingfire.__file__).parent / "xlm_roberta_base.i2w"))
    try:
        for piece in range(SIZE):
            if piece in CONTROL:
                yield CONTROL[piece], 0.0
                continue
            # A piece that starts a word shows its space only where something stands before it: here a comma.
            ids = np.array([_COMMA, piece], np.int32)
            text = blingfire.ids_to_text(words, ids, skip_special_tokens=False)[1:]
            if piece == _SPACE:
                text = "▁"
            elif text.startswith(" "):
                text = "▁" + text[1:]
            yield text, _score(piece)
    finally:
        blingfire.free_model(words)


def tokenizer() -> str:
    """A tokenizer.json with XLM-R's pieces and ids and the template `<s> $A </s>`, shaped as the hub's file is."""
    unigram = Tokenizer(models.Unigram(list(pieces()), unk_id=3, byte_fallback=False))
    unigram.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    unigram.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    unigram.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    unigram.add_special_tokens(list(CONTROL.values()))
    return str(unigram.to_str())
