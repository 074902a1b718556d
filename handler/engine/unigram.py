"""A unigram vocabulary that is ready at once: what `tokenizers` builds of 250,002 pieces takes it a second, with the
interpreter's lock held, and 230 MB; this takes 60 ms and 40 MB, and gives the same ids.

Text is normalized and split by `tokenizers`' own parts, which have no vocabulary. Each word is cut where the sum of its
pieces' scores is largest: sentencepiece's algorithm (unigram_model.cc, EncodeOptimized) in the same order and the same
doubles as `tokenizers`' `Unigram.encode_optimized`, so that ties fall alike. The builder writes the file from
tokenizer.json (model_layer/unigram.py).
"""

import base64
import json
from array import array
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from handler.engine.manifest import LayerError

_UNKNOWN_PENALTY = 10.0  # below the lowest score: sentencepiece's kUnkPenalty
_REMEMBERED = 20_000  # words, a few MB
_WORD = 64  # characters of a word that may come again


class Unigram:
    """The file of a layer: `pieces` by their ids, `before` and `after` the ids around every text."""

    def __init__(self, path: Path) -> None:
        try:
            values: dict[str, Any] = json.loads(path.read_bytes())
            self.pieces: list[str] = values["pieces"].split("\n")
            self._scores = array("d", base64.b64decode(values["scores"]))
            prefixes: list[str] = values["prefixes"].split("\n")
            self._reach = dict(zip(prefixes, base64.b64decode(values["reach"]), strict=True))
            self._ids = dict(zip(self.pieces, range(len(self._scores)), strict=True))
            self._unknown: int = values["unknown"]
            self.before: list[int] = values["before"]
            self.after: list[int] = values["after"]
            parts = Tokenizer.from_str(json.dumps(values["parts"]))
        except Exception as error:  # the library raises Exception itself
            raise LayerError(f"{path} cannot be read: {error}. Build the layer again.") from None
        self._normalizer, self._splitter = parts.normalizer, parts.pre_tokenizer
        self._unknown_score = min(self._scores) - _UNKNOWN_PENALTY
        self._words: dict[str, list[int]] = {}

    def content(self, text: str) -> list[int]:
        """Token ids of a text, without the special tokens."""
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        ids: list[int] = []
        words = self._words
        for word, _ in self._splitter.pre_tokenize_str(text):
            found = words.get(word)
            if found is None:
                found = self._cut(word)
                if len(word) <= _WORD:
                    if len(words) >= _REMEMBERED:
                        words.clear()
                    words[word] = found
            ids += found
        return ids

    def _cut(self, word: str) -> list[int]:
        """The pieces of the best path to each of the word's ends, the last of which is the word's own."""
        find, scores, reach, unknown = self._ids.get, self._scores, self._reach.get, self._unknown
        size = len(word)
        best, begins, pieces = [float("-inf")] * (size + 1), [0] * (size + 1), [unknown] * (size + 1)
        best[0] = 0.0
        for begin in range(size):
            here = best[begin]
            # No piece that begins with these two characters is longer.
            for end in range(begin + 1, min(size, begin + reach(word[begin : begin + 2], 1)) + 1):
                piece = find(word[begin:end])
                if piece is not None and (score := scores[piece] + here) > best[end]:
                    best[end], begins[end], pieces[end] = score, begin, piece
            if word[begin] not in self._ids and (score := self._unknown_score + here) > best[begin + 1]:
                best[begin + 1], begins[begin + 1], pieces[begin + 1] = score, begin, unknown
        return self._walk(word, begins, pieces)

    def _walk(self, word: str, begins: list[int], pieces: list[int]) -> list[int]:
        """The path back from the word's end, turned round. Neighbours that are unknown are one piece."""
        ids: list[int] = []
        end = unknown_end = len(word)
        while end:
            if pieces[end] != self._unknown:
                ids.append(pieces[end])
                end = unknown_end = begins[end]
                continue
            end = begins[end]
            if not end or pieces[end] != self._unknown:
                ids.append(self._ids.get(word[end:unknown_end], self._unknown))
        ids.reverse()
        return ids
