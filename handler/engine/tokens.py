"""The layer's tokenizer: text to token ids, and which ids a caller may send in its place."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer

from handler.contract.inputs import TokenArrays
from handler.engine.manifest import TOKENIZER, LayerError

_UNKNOWN = ("<unk>", "[UNK]")  # the control piece that texts do have: where the vocabulary has no other


class UnknownTokenError(Exception):
    """The array of this index has at this position an id that may not be there."""

    def __init__(self, index: int, position: int, token: int) -> None:
        super().__init__(f"array {index}, position {position}")
        self.index, self.position, self.token = index, position, token


class Tokens:
    """The layer's tokenizer. It neither cuts nor pads, and text that spells a special token is text (model_layer)."""

    def __init__(self, layer: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(layer / TOKENIZER))
        except Exception as error:  # the library raises Exception itself
            raise LayerError(f"{layer / TOKENIZER} cannot be read: {error}. Build the layer again.") from None
        self.special_tokens: int = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included; native threads work on the texts side by side."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def content(self, text: str) -> list[int]:
        """Token ids of a text, without the special tokens."""
        ids: list[int] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def framed(self, content: list[int]) -> list[int]:
        """Ids of a text with the special tokens around them."""
        before, after = self._template
        return [*before, *content, *after]

    def unframed(self, ids: list[int]) -> list[int]:
        """Ids of a text out of those that `encode` gives."""
        before, after = self._template
        return ids[len(before) : len(ids) - len(after)]

    def contents(self, arrays: TokenArrays, control_ids: Iterable[int]) -> list[list[int]]:
        """Ids of each text out of ids that a caller sent, who may have put the special tokens in front and behind.

        Raises UnknownTokenError for the first id outside the vocabulary, and for a control piece anywhere else.
        """
        names = {token: self._tokenizer.id_to_token(token) for token in control_ids}
        refused = {token for token, name in names.items() if str(name).strip() not in _UNKNOWN}
        size = self._tokenizer.get_vocab_size()
        found = []
        for index, ids in enumerate(arrays):
            start, end = self._bounds(ids)
            content = ids[start:end]
            if content and not (min(content) >= 0 and max(content) < size and refused.isdisjoint(content)):
                wrong = (n for n, token in enumerate(content) if not 0 <= token < size or token in refused)
                position = start + next(wrong)
                raise UnknownTokenError(index, position, ids[position])
            found.append(content)
        return found

    def _bounds(self, ids: list[int]) -> tuple[int, int]:
        """Where in ids the text begins and ends, if the special tokens are there."""
        before, after = self._template
        start = len(before) if ids[: len(before)] == before else 0
        behind = len(ids) - len(after)
        return start, behind if ids[behind:] == after else len(ids)

    @cached_property
    def _template(self) -> tuple[list[int], list[int]]:
        """The special tokens in front of a text, and behind it."""
        [framed], content = self.encode(["a"]), self.content("a")
        start = next(n for n in range(len(framed)) if framed[n : n + len(content)] == content)
        return framed[:start], framed[start + len(content) :]
