"""Token ids of cl100k_base, which OpenAI's clients send, made text again."""

from binascii import a2b_base64
from functools import cached_property
from pathlib import Path

from handler.contract.inputs import TokenArrays
from handler.engine.manifest import CL100K
from handler.engine.tokens import UnknownTokenError

NAME = "cl100k_base"
CONTEXT = 8192  # ids that OpenAI's clients take for one text at most, before they cut it themselves

# tiktoken_ext/openai_public.py, `cl100k_base`
_SPECIALS = {
    100257: b"<|endoftext|>",
    100258: b"<|fim_prefix|>",
    100259: b"<|fim_middle|>",
    100260: b"<|fim_suffix|>",
    100276: b"<|endofprompt|>",
}


class Cl100k:
    """The vocabulary in a layer, read when ids are first sent: most callers send text."""

    def __init__(self, layer: Path) -> None:
        self._path = layer / CL100K

    def check(self, arrays: TokenArrays) -> None:
        """Raise UnknownTokenError for the first id that the vocabulary has not."""
        known = self._pieces.keys()
        for index, ids in enumerate(arrays):
            if not known >= set(ids):
                position = next(position for position, token in enumerate(ids) if token not in known)
                raise UnknownTokenError(index, position, ids[position])

    def decode(self, ids: list[int]) -> str:
        """The text of ids that have been checked. Bytes that are no UTF-8, as where a client has cut a text inside a
        character, become U+FFFD."""
        return b"".join(map(self._pieces.__getitem__, ids)).decode("utf-8", "replace")

    @cached_property
    def _pieces(self) -> dict[int, bytes]:
        words = self._path.read_bytes().split()  # a line a piece: base64, and its rank, in the order of ranks from 0
        return dict(enumerate(map(a2b_base64, words[::2]))) | _SPECIALS
