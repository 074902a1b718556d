"""A tokenizer.json in the form a layer holds it: control pieces that no text can reach, nothing cut or padded."""

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

_MARK = " "  # in front of a control piece: after the split at white space, no text holds one


class TokenizerError(Exception):
    """A tokenizer.json is not one that a layer can hold; the message says why."""


@dataclass(frozen=True)
class LayerTokenizer:
    """`text`: a layer's tokenizer.json; `control_ids`, ascending: pieces for no text; `special_tokens`: how many of
    them the template puts around one."""

    text: str
    control_ids: tuple[int, ...]
    special_tokens: int


def layer_form(published: str, vocabulary: int) -> LayerTokenizer:
    """The same tokenizer, ids unchanged, for which text that spells a control piece (`</s>`, `[CLS]`) is just text.

    The list of added tokens, which the library would look for in every text, goes; the template keeps their ids. In a
    vocabulary control pieces are ordinary entries and could still match, so there they are spelled with a space in
    front. Raises TokenizerError.
    """
    try:
        values: dict[str, Any] = json.loads(published)
        names = {token["id"]: str(token["content"]) for token in values["added_tokens"] if token["special"]}
        model = values["model"]
        if model["type"] == "Unigram":
            model["vocab"] = [
                [_MARK + piece if index in names else piece, score]
                for index, (piece, score) in enumerate(model["vocab"])
            ]
            unknown = model["unk_id"]
        elif model["type"] == "WordPiece":
            model["vocab"] = {
                _MARK + piece if index in names else piece: index for piece, index in model["vocab"].items()
            }
            unknown = next(index for index, name in names.items() if name == model["unk_token"])
            model["unk_token"] = _MARK + model["unk_token"]
        else:
            raise TokenizerError(f"it is a {model['type']} tokenizer: expected Unigram or WordPiece")
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration, RecursionError) as error:
        raise TokenizerError(f"it is not what the tokenizers library writes ({error!r})") from None
    values |= {"added_tokens": [], "truncation": None, "padding": None}
    made = read(json.dumps(values, ensure_ascii=False, separators=(",", ":")), vocabulary)
    spelled = Tokenizer.from_str(made.text).encode(" ".join(names.values()), add_special_tokens=False).ids
    if reached := set(spelled).intersection(made.control_ids) - {unknown}:
        raise TokenizerError(f"text can spell its control pieces {sorted(reached)}")
    return made


def read(text: str, vocabulary: int) -> LayerTokenizer:
    """What a layer's tokenizer.json is, for a model with so many pieces. Raises TokenizerError."""
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises Exception itself
        raise TokenizerError(f"the tokenizers library does not take it ({error})") from None
    special = int(tokenizer.num_special_tokens_to_add(is_pair=False))
    if not special:
        raise TokenizerError("its template puts no tokens around a text")
    if (pieces := tokenizer.get_vocab_size()) != vocabulary:
        raise TokenizerError(f"it has {pieces} pieces, the model {vocabulary}")
    control = sorted(index for piece, index in tokenizer.get_vocab().items() if piece.startswith(_MARK))
    return LayerTokenizer(text, tuple(control), special)
