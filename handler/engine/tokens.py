"""Text to token ids, in one native call for all texts of an ordinary request."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from handler.engine.manifest import TOKENIZER, LayerError

# The tokenizer takes some hundred bytes for every character while it works: more characters than this go in several
# calls, so that no request takes the container's memory.
_CHARACTERS = 500_000


class TextTooLongError(Exception):
    """The text of this index has this many tokens, without the specials, more than may be."""

    def __init__(self, index: int, tokens: int) -> None:
        super().__init__(f"text {index}: {tokens} tokens")
        self.index, self.tokens = index, tokens


class TooManyTokensError(Exception):
    """All texts together have this many tokens, without the specials, more than may be."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"{tokens} tokens")
        self.tokens = tokens


class Tokens:
    """The layer's tokenizer. It neither cuts nor pads, and text that spells a special token is text (model_layer)."""

    def __init__(self, layer: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(layer / TOKENIZER))
        except Exception as error:  # the library raises Exception itself
            raise LayerError(f"{layer / TOKENIZER} cannot be read: {error}. Build the layer again.") from None
        self.special_tokens: int = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def encode(self, texts: Sequence[str], *, each: int | None = None, total: int | None = None) -> list[list[int]]:
        """Token ids of each text, special tokens included; native threads work on the texts side by side.

        Raises TextTooLongError for the first text of more than `each` tokens, else TooManyTokensError for more than
        `total`, both counted without the specials.
        """
        ids: list[list[int]] = []
        count = 0
        for group in _groups(texts):
            start = len(ids)
            if each is not None and len(group) == 1 and len(group[0]) > _CHARACTERS:
                self._refuse_long(start, group[0], each)
            found = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(group))]
            for index, tokens in enumerate(found, start):
                length = len(tokens) - self.special_tokens
                if each is not None and length > each:
                    raise TextTooLongError(index, length)
                count += length
            # Of what will be refused only the number is wanted.
            ids += found if total is None or count <= total else [[] for _ in found]
        if total is not None and count > total:
            raise TooManyTokensError(count)
        return ids

    def _refuse_long(self, index: int, text: str, each: int) -> None:
        """Count a very long text piece by piece, cut at white space where there is any."""
        count = 0
        for piece in _pieces(text):
            count += len(self._tokenizer.encode_batch_fast([piece], add_special_tokens=False)[0].ids)
        if count > each:
            raise TextTooLongError(index, count)


def _groups(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in order, in runs of at most _CHARACTERS characters; a longer text is a run of its own."""
    start = size = 0
    for index, text in enumerate(texts):
        if size and size + len(text) > _CHARACTERS:
            yield texts[start:index]
            start, size = index, 0
        size += len(text)
    yield texts[start:]


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = start + _CHARACTERS
        if end < len(text):
            end = max(text.rfind(" ", start, end), text.rfind("\n", start, end)) + 1 or end
        yield text[start:end]
        start = end
