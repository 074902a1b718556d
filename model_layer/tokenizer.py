"""A tokenizer.json in the form a layer holds it: control pieces that no text can reach, nothing cut or padded."""

import json
from typing import Any

from tokenizers import Tokenizer


def layer_form(text: str) -> str:
    """The same tokenizer, ids unchanged, for which text that spells a control piece (`</s>`, `[CLS]`) is just text.

    The list of added tokens, which the library would look for in every text, goes; the template keeps their ids. In a
    unigram vocabulary control pieces are ordinary entries and would still match, so they are spelled with a space in
    front: after the split at white space no text that reaches the vocabulary holds one. A WordPiece vocabulary needs
    no such thing: its brackets are punctuation, which is always split off.
    """
    values: dict[str, Any] = json.loads(text)
    control = control_ids(text)
    values |= {"added_tokens": [], "truncation": None, "padding": None}
    model = values["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [
            [f" {piece}" if index in control else piece, score] for index, (piece, score) in enumerate(model["vocab"])
        ]
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def control_ids(text: str) -> tuple[int, ...]:
    """Ids of the special tokens that a published tokenizer.json adds to its vocabulary, ascending."""
    return tuple(sorted(token["id"] for token in json.loads(text)["added_tokens"] if token["special"]))


def special_tokens(text: str) -> int:
    """How many tokens the template puts around a text."""
    return int(Tokenizer.from_str(text).num_special_tokens_to_add(is_pair=False))
