"""The layer's tokenizer: text to token ids, and which ids a caller may send in its place."""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer

from handler.contract.inputs import TokenArrays
from handler.engine.manifest import TOKENIZER, UNIGRAM, LayerError
from handler.engine.unigram import Unigram

# Characters that the vocabulary which is ready at once takes in one call, 0.1 to 0.4 s of one core; more of them keep
# the model for minutes, and are worth the second in which the library reads its own.
_SHORT = 200_000

_UNKNOWN = ("<unk>", "[UNK]")  # the control piece that texts do have: where the vocabulary has no other


class UnknownTokenError(Exception):
    """The array of this index has at this position an id that may not be there."""

    def __init__(self, index: int, position: int, token: int) -> None:
        super().__init__(f"array {index}, position {position}")
        self.index, self.position, self.token = index, position, token


class Tokens:
    """The layer's tokenizer. It neither cuts nor pads, and text that spells a special token is text (model_layer)."""

    def __init__(self, layer: Path) -> None:
        self._path, self._loading = layer / TOKENIZER, threading.Lock()
        self._loaded: Tokenizer | None = None
        if (layer / UNIGRAM).exists():
            self._unigram: Unigram | None = Unigram(layer / UNIGRAM)
            self._before, self._after = self._unigram.before, self._unigram.after
        else:
            self._unigram = None
            self._before, self._after = self._specials()
        self.special_tokens = len(self._before) + len(self._after)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included; native threads work on many texts side by side."""
        if (unigram := self._ready_for(texts)) is not None:
            return [self.framed(unigram.content(text)) for text in texts]
        return [encoding.ids for encoding in self._library().encode_batch_fast(list(texts))]

    def content(self, text: str) -> list[int]:
        """Token ids of a text, without the special tokens."""
        if (unigram := self._ready_for([text])) is not None:
            return unigram.content(text)
        ids: list[int] = self._library().encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def framed(self, content: list[int]) -> list[int]:
        """Ids of a text with the special tokens around them."""
        return [*self._before, *content, *self._after]

    def unframed(self, ids: list[int]) -> list[int]:
        """Ids of a text out of those that `encode` gives."""
        return ids[len(self._before) : len(ids) - len(self._after)]

    def contents(self, arrays: TokenArrays, control_ids: Iterable[int]) -> list[list[int]]:
        """Ids of each text out of ids that a caller sent, who may have put the special tokens in front and behind.

        Raises UnknownTokenError for the first id outside the vocabulary, and for a control piece anywhere else.
        """
        refused = {token for token in control_ids if self._name(token).strip() not in _UNKNOWN}
        size = self._size
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
        start = len(self._before) if ids[: len(self._before)] == self._before else 0
        behind = len(ids) - len(self._after)
        return start, behind if ids[behind:] == self._after else len(ids)

    def _specials(self) -> tuple[list[int], list[int]]:
        """The special tokens in front of a text, and behind it."""
        [framed], content = self.encode(["a"]), self.content("a")
        start = next(n for n in range(len(framed)) if framed[n : n + len(content)] == content)
        return framed[:start], framed[start + len(content) :]

    @property
    def _size(self) -> int:
        return len(self._unigram.pieces) if self._unigram is not None else self._library().get_vocab_size()

    def _name(self, token: int) -> str:
        return self._unigram.pieces[token] if self._unigram is not None else str(self._library().id_to_token(token))

    def _ready_for(self, texts: Sequence[str]) -> Unigram | None:
        return self._unigram if sum(map(len, texts)) <= _SHORT else None

    def _library(self) -> Tokenizer:
        with self._loading:  # once, whoever comes meanwhile
            if self._loaded is None:
                try:
                    self._loaded = Tokenizer.from_file(str(self._path))
                except Exception as error:  # the library raises Exception itself
                    raise LayerError(f"{self._path} cannot be read: {error}. Build the layer again.") from None
            return self._loaded
