"""A unigram tokenizer.json once more, in the form that a function reads at once (handler/engine/unigram.py)."""

import base64
import json
from array import array
from typing import Any

from tokenizers import Tokenizer

_PROBE = "a"
_LONGEST = 255  # characters of a piece, a byte of the file


def form(text: str) -> str | None:
    """The file's text for a layer's tokenizer.json; None for a tokenizer that is none of these.

    Scores are those that `tokenizers` holds: its JSON parser is off by a last bit of a fourth of them, and a tie of two
    paths is decided by such a bit.
    """
    tokenizer = Tokenizer.from_str(text)
    held: dict[str, Any] = json.loads(tokenizer.to_str())
    model = held["model"]
    if model["type"] != "Unigram" or model["byte_fallback"] or held["pre_tokenizer"] is None:
        return None
    pieces, scores = zip(*model["vocab"], strict=True)
    if any("\n" in piece or len(piece) > _LONGEST for piece in pieces):
        return None
    framed = tokenizer.encode(_PROBE).ids
    content = tokenizer.encode(_PROBE, add_special_tokens=False).ids
    start = next(n for n in range(len(framed)) if framed[n : n + len(content)] == content)
    reach: dict[str, int] = {}
    for piece in pieces:
        reach[piece[:2]] = max(reach.get(piece[:2], 0), len(piece))
    values = {
        "before": framed[:start],
        "after": framed[start + len(content) :],
        "unknown": model["unk_id"],
        "parts": {
            "version": held["version"],
            "normalizer": held["normalizer"],
            "pre_tokenizer": held["pre_tokenizer"],
            "model": {"type": "WordLevel", "vocab": {}, "unk_token": ""},
        },
        "scores": base64.b64encode(array("d", scores).tobytes()).decode(),
        "prefixes": "\n".join(reach),
        "reach": base64.b64encode(bytes(reach.values())).decode(),
        "pieces": "\n".join(pieces),
    }
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n"
