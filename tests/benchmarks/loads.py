"""What every peer is given: lists of token ids, special tokens included, cut out of real texts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from handler.engine.tokens import Tokens
from model_layer import parity
from model_layer.catalog import Texts


@dataclass(frozen=True)
class Load:
    name: str
    about: str
    lengths: tuple[int, ...]  # of each text, special tokens included
    long: bool = False  # takes minutes: only where it is asked for

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


def within(load: Load, context: int) -> Load | None:
    """The load for a model of this context: texts of many lengths are cut to it, one length that is over it is none."""
    if min(load.lengths) > context:
        return None
    if max(load.lengths) <= context:
        return load
    lengths = tuple(min(length, context) for length in load.lengths)
    return replace(load, lengths=lengths, about=f"{load.about}, cut to {context}: {sum(lengths):,}")


def _mixed() -> tuple[int, ...]:
    drawn = np.random.default_rng(1).lognormal(np.log(64), 1, 32)
    return tuple(int(length) for length in np.clip(np.rint(drawn), 8, 512))


def _short() -> tuple[int, ...]:
    return tuple(int(length) for length in np.random.default_rng(1).integers(8, 32, 256, endpoint=True))


def uniform(count: int, length: int, *, long: bool = False) -> Load:
    about = f"{'a text' if count == 1 else f'{count:,} texts'} of {length:,} tokens"
    return Load(f"{count}x{length}", about, (length,) * count, long)


LOADS = {
    load.name: load
    for load in (
        uniform(1, 16),
        uniform(1, 128),
        uniform(1, 512),
        Load("mixed", "32 texts of 8 to 512 tokens, log-normal with a median of 64, 2,868 in all", _mixed()),
        Load("short", "256 texts of 8 to 32 tokens", _short()),
        uniform(1, 8192, long=True),
    )
}


class Texter:
    """Cuts texts of any length out of a stream of real tokens: all that these texts have, over and over."""

    def __init__(self, layer: Path, texts: Texts) -> None:
        tokens = Tokens(layer)
        contents = [tokens.unframed(ids) for ids in tokens.encode(parity.texts(texts))]
        self._stream = [token for content in contents for token in content]
        self._tokens = tokens

    def texts(self, lengths: Sequence[int], seed: int = 1) -> list[list[int]]:
        """A text of each length, special tokens included; each begins at a place of its own."""
        starts = np.random.default_rng(seed).choice(len(self._stream), len(lengths), replace=False)
        return [self._text(int(start), length) for start, length in zip(starts, lengths, strict=True)]

    def _text(self, start: int, length: int) -> list[int]:
        content = length - self._tokens.special_tokens
        stream = self._stream[start:] + self._stream * (1 + content // len(self._stream))
        return self._tokens.framed(stream[:content])
