"""Text to token ids, in one native call for all texts of a request."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from handler.engine.manifest import LayerError

FILE = "tokenizer.json"


class Tokens:
    """The layer's tokenizer. It neither cuts nor pads, and text that spells a special token is text (model_layer)."""

    def __init__(self, layer: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(layer / FILE))
        except Exception as error:  # the library raises Exception itself
            raise LayerError(f"{layer / FILE} cannot be read: {error}. Build the layer again.") from None
        self.special_tokens: int = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included; native threads work on them side by side."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]
