"""A tokenizer.json in the form a layer holds it: control pieces that no text can reach, nothing cut or padded."""

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

_KINDS = ("Unigram", "WordPiece")  # those whose control pieces `layer_form` knows how to put out of reach


class TokenizerError(Exception):
    """A published tokenizer.json is not one that a layer can hold; the message says why."""


@dataclass(frozen=True)
class LayerTokenizer:
    """`text`: the layer's tokenizer.json; `control_ids`, ascending: pieces for no text; `special_tokens`: how many of
    them the template puts around one."""

    text: str
    control_ids: tuple[int, ...]
    special_tokens: int


def layer_form(published: str, vocabulary: int) -> LayerTokenizer:
    """The same tokenizer, ids unchanged, for which text that spells a control piece (`</s>`, `[CLS]`) is just text.

    The list of added tokens, which the library would look for in every text, goes; the template keeps their ids. In a
    unigram vocabulary control pieces are ordinary entries and would still match, so they are spelled with a space in
    front: after the split at white space no text that reaches the vocabulary holds one. A WordPiece vocabulary needs
    no such thing: its brackets are punctuation, which is always split off. Raises TokenizerError.
    """
    values: dict[str, Any] = json.loads(published)
    try:
        names = {token["id"]: token["content"] for token in values["added_tokens"] if token["special"]}
        model = values["model"]
        if model["type"] not in _KINDS:
            raise TokenizerError(f"it is a {model['type']} tokenizer: expected {' or '.join(_KINDS)}")
        if len(model["vocab"]) != vocabulary:
            raise TokenizerError(f"it has {len(model['vocab'])} pieces, the model {vocabulary}")
        if model["type"] == "Unigram":
            model["vocab"] = [
                [f" {piece}" if index in names else piece, score] for index, (piece, score) in enumerate(model["vocab"])
            ]
    except (KeyError, TypeError, ValueError) as error:
        raise TokenizerError(f"it is not what the tokenizers library writes ({error!r})") from None
    values |= {"added_tokens": [], "truncation": None, "padding": None}
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise TokenizerError(f"the tokenizers library does not take it ({error})") from None
    special = int(tokenizer.num_special_tokens_to_add(is_pair=False))
    if not special:
        raise TokenizerError("its template puts no tokens around a text")
    unknown = tokenizer.token_to_id(str(model.get("unk_token"))) if model["type"] == "WordPiece" else model["unk_id"]
    spelled = tokenizer.encode(" ".join(names.values()), add_special_tokens=False).ids
    if reached := (set(spelled) & set(names)) - {unknown}:
        raise TokenizerError(f"text can spell its control pieces {sorted(reached)}")
    return LayerTokenizer(text, tuple(sorted(names)), special)
