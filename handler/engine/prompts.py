"""The inputs of a request as the engine takes them: within the model's context, and together within a limit."""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from handler.contract.inputs import TokenArrays
from handler.engine.budget import Budget, Run
from handler.engine.cl100k import CONTEXT, Cl100k
from handler.engine.engine import Matrix
from handler.engine.tokens import Tokens

# The tokenizer takes some hundred bytes for every character while it works: more characters than this go in several
# calls, so that no request takes the container's memory.
_CHARACTERS = 500_000
_IDS = 4_000  # to be made text at once where it is only counted; a piece of cl100k has at most 128 characters


class TextTooLongError(Exception):
    """The input of this index has this many tokens, without the specials, more than may be."""

    def __init__(self, index: int, tokens: int) -> None:
        super().__init__(f"input {index}: {tokens} tokens")
        self.index, self.tokens = index, tokens


class TooManyTokensError(Exception):
    """All inputs together have this many tokens, without the specials, more than may be."""

    def __init__(self, tokens: int) -> None:
        super().__init__(f"{tokens} tokens")
        self.tokens = tokens


@dataclass(frozen=True)
class Bounds:
    """Tokens, without the specials, that an input may have and all of them together; `truncate`: a longer input loses
    its end in place of being refused."""

    each: int
    total: int
    truncate: bool = False


@dataclass(frozen=True)
class Prompts:
    """What the engine runs. `ids`: of each run, special tokens included: one run an input, several for one that is
    averaged. `tokens`: of all runs, without the specials. `truncated`, `averaged`: indexes of inputs, ascending."""

    ids: list[Run]
    tokens: int
    truncated: tuple[int, ...] = ()
    averaged: tuple[int, ...] = ()
    _starts: tuple[int, ...] = ()  # the first run of each input, where they are not the same
    _weights: tuple[int, ...] = ()  # tokens of each run, likewise

    @property
    def changed(self) -> tuple[int, ...]:
        """Indexes of inputs that the answer names, ascending: a request is truncated or averaged, never both."""
        return self.truncated or self.averaged

    def input_of(self, run: int) -> int:
        """The index of the input that a run belongs to."""
        return bisect_right(self._starts, run) - 1 if self._starts else run

    def vectors(self, rows: Matrix) -> Matrix:
        """float32 [inputs, dimensions] out of float32 [runs, dimensions].

        An averaged input has the mean of its rows weighted by their tokens, L2-normalized: what langchain_openai makes
        of the parts into which it cuts a text (`_process_batched_chunked_embeddings`).
        """
        if not self.averaged:
            return rows
        found = rows[list(self._starts)]
        for index in self.averaged:
            runs = slice(self._starts[index], self._starts[index + 1] if index + 1 < len(found) else None)
            mean = np.average(rows[runs].astype(np.float64), axis=0, weights=self._weights[runs])
            found[index] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return found


def of_texts(tokens: Tokens, texts: Sequence[str], bounds: Bounds, budget: Budget | None = None) -> Prompts:
    """Prompts of texts, tokenized in as few calls as memory allows.

    Raises TextTooLongError for the first text of more than `bounds.each` tokens, else TooManyTokensError for more than
    `bounds.total` in all, counted after texts have been cut; and LateError where the `budget` has no time for them
    (None: there is always time).
    """
    return _Reader(tokens, bounds, budget).read(texts)


def of_cl100k(
    tokens: Tokens, vocabulary: Cl100k, arrays: TokenArrays, bounds: Bounds, budget: Budget | None = None
) -> Prompts:
    """Prompts of the texts that ids of cl100k_base spell.

    What their client has kept within the 8,192 of OpenAI's models is averaged over windows where this model's pieces
    are more than its context, unless it is to be truncated. `bounds.total` is held against the ids, by which their
    client has packed the request. Raises UnknownTokenError before all else, then as `of_texts`.
    """
    vocabulary.check(arrays)
    sent = [len(ids) for ids in arrays]
    if (total := sum(sent)) > bounds.total:
        _refuse(tokens, vocabulary, arrays, bounds, budget)
        raise TooManyTokensError(total)
    return _Reader(tokens, bounds, budget, sent).read(map(vocabulary.decode, arrays))


def of_contents(tokens: Tokens, contents: TokenArrays, bounds: Bounds, budget: Budget | None = None) -> Prompts:
    """Prompts of the model's own ids, without the special tokens. Raises as `of_texts`."""
    reader = _Reader(tokens, bounds, budget)
    reader.take([tokens.framed(content) for content in contents])
    return reader.prompts()


def _refuse(tokens: Tokens, vocabulary: Cl100k, arrays: TokenArrays, bounds: Bounds, budget: Budget | None) -> None:
    """Raise TextTooLongError if one of the arrays is a reason to, of a request that is refused in any case. They may be
    of any size: part of an array is text at a time, which differs from the whole by a piece at each seam at most."""
    if bounds.truncate:
        return
    for index, ids in enumerate(arrays):
        if len(ids) > CONTEXT:
            count = 0
            for start in range(0, len(ids), _IDS):
                count += len(tokens.content(vocabulary.decode(ids[start : start + _IDS])))
                if budget is not None:
                    budget.check(count, by_pace=False)
            if count > bounds.each:
                raise TextTooLongError(index, count)


class _Reader:
    """Makes prompts of texts that come in groups. `sent`: cl100k ids of each, where that is what they came as."""

    def __init__(self, tokens: Tokens, bounds: Bounds, budget: Budget | None, sent: Sequence[int] = ()) -> None:
        self._tokens, self._bounds, self._budget, self._sent = tokens, bounds, budget, sent
        self._ids: list[Run] = []
        self._starts: list[int] = []  # the first run of each input
        self._count = 0
        self._truncated: list[int] = []
        self._long: list[int] = []  # to be averaged

    def read(self, texts: Iterable[str]) -> Prompts:
        for group in _groups(texts):
            if len(group) == 1 and len(group[0]) > _CHARACTERS and not self._in_windows(len(self._starts)):
                self._take_very_long(group[0])
            else:
                self.take(self._tokens.encode(group))
        return self.prompts()

    def take(self, inputs: list[list[int]]) -> None:
        """The next inputs, each as one run."""
        each, special, first = self._bounds.each, self._tokens.special_tokens, len(self._ids)
        for ids in inputs:
            index, length = len(self._starts), len(ids) - special
            self._starts.append(len(self._ids))
            if length <= each:
                self._ids.append(array("i", ids))
            elif self._in_windows(index):
                self._long.append(index)
                self._ids += self._windows(ids)
            elif self._bounds.truncate:
                self._truncated.append(index)
                self._ids.append(array("i", self._tokens.framed(self._tokens.unframed(ids)[:each])))
                length = each
            else:
                raise TextTooLongError(index, length)
            self._count += length
        if self._budget is not None:
            self._budget.add(self._ids[first:])
        if not self._sent and self._count > self._bounds.total:
            self._ids.clear()  # of what will be refused only the number is wanted
        self._watch(self._count)

    def prompts(self) -> Prompts:
        """Of all that were taken. Raises TooManyTokensError."""
        if not self._sent and self._count > self._bounds.total:
            raise TooManyTokensError(self._count)
        if not self._long:
            return Prompts(self._ids, self._count, tuple(self._truncated))
        weights = tuple(len(ids) - self._tokens.special_tokens for ids in self._ids)
        return Prompts(self._ids, self._count, (), tuple(self._long), tuple(self._starts), weights)

    def _watch(self, tokens: int) -> None:
        """Only ids may spell more than `bounds.total`, and all of that would be held: there it counts whether it can be
        done. Of text the count goes on, because a refusal names it."""
        if self._budget is not None:
            self._budget.check(tokens, by_pace=bool(self._sent) and tokens > self._bounds.total)

    def _in_windows(self, index: int) -> bool:
        return bool(self._sent) and self._sent[index] <= CONTEXT and not self._bounds.truncate

    def _windows(self, ids: list[int]) -> Iterator[Run]:
        content, each = self._tokens.unframed(ids), self._bounds.each
        for start in range(0, len(content), each):
            yield array("i", self._tokens.framed(content[start : start + each]))

    def _take_very_long(self, text: str) -> None:
        """A text that may well be longer than the context is read piece by piece, as far as is needed to know."""
        head: list[int] = []
        count = 0
        each, truncate = self._bounds.each, self._bounds.truncate
        for piece in _pieces(text):
            found = self._tokens.content(piece)
            count += len(found)
            self._watch(self._count + count)
            if truncate:
                head += found
                if count > each:
                    break
        if count <= each:
            self.take(self._tokens.encode([text]))
        elif truncate:
            self.take([self._tokens.framed(head)])
        else:
            raise TextTooLongError(len(self._starts), count)


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in order, in runs of at most _CHARACTERS characters; a longer text is a run of its own."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > _CHARACTERS:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    yield group


def _pieces(text: str) -> Iterator[str]:
    """A text in parts of at most _CHARACTERS characters, cut at white space where there is any."""
    start = 0
    while start < len(text):
        end = start + _CHARACTERS
        if end < len(text):
            end = max(text.rfind(" ", start, end), text.rfind("\n", start, end)) + 1 or end
        yield text[start:end]
        start = end
