"""Many requests encoded together: each is limited and answered as if it were alone, and the engine gets all of them at
once."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Protocol

from handler import render
from handler.billing.buckets import cost as usd
from handler.billing.keys import Caller
from handler.billing.limits import Counters
from handler.contract import embeddings, errors, inputs
from handler.contract.embeddings import EmbeddingRequest
from handler.contract.errors import ApiError
from handler.contract.inputs import MAX_INPUTS
from handler.contract.limits import Demand
from handler.contract.models import Models
from handler.engine.budget import Budget
from handler.engine.engine import DeadlineError, Engine, Matrix, NonFiniteVectorError
from handler.engine.prompts import Prompts
from handler.intake import Intake
from handler.payers import Payer

_MOST = 0.9  # of all the time that there is, which one request may take: what comes before it takes some


@dataclass(frozen=True)
class Answered:
    """What became of a request: the response's status and body, and the tokens that are billed for it."""

    status: int
    body: bytes
    tokens: int

    @classmethod
    def refused(cls, error: ApiError) -> "Answered":
        """An error, for which nothing is billed."""
        return cls(error.status, error.body(), 0)


@dataclass
class _Work:
    """A request with all that can be refused without the engine behind it."""

    request: EmbeddingRequest
    prompts: Prompts
    cost: float


_Found = _Work | Exception


class Counted(Protocol):
    """Which of a call's bodies have been counted on their payer's limits, by their place: a set, or what keeps one
    beyond the call. Any of it may raise StoreUnavailableError."""

    def __contains__(self, place: int, /) -> bool: ...

    def update(self, places: Sequence[int], /) -> None: ...


class Bulk:
    """Answers requests by the group."""

    def __init__(
        self, models: Models, intake: Intake, counters: Counters, engine: Engine, *, has_many_callers: bool
    ) -> None:
        self._models, self._intake, self._counters, self._engine = models, intake, counters, engine
        self._has_many_callers = has_many_callers

    def answer(
        self,
        bodies: Sequence[Mapping[str, Any]],
        payer: Payer,
        deadline: float | None = None,
        counted: Counted | None = None,
    ) -> list[Answered]:
        """What each body of one payer gets, in order: 200, or the error that it alone is to blame for. What is counted
        is the month's: no minute limits a batch. `counted`: those that are not counted again; of the others it is told
        before any is embedded.

        Raises DeadlineError once the `deadline` of time.monotonic() has come, and StoreUnavailableError: then none is
        answered.
        """
        found: list[_Work | ApiError] = [self._accept(body) for body in bodies]
        self._limit(found, payer, set[int]() if counted is None else counted)
        return self._encode(found, deadline)

    def probe(self, deadline: float | None = None) -> None:
        """Embed a good text, which nobody pays for. Raises what would come in the way of any."""
        [answer] = self._encode([self._accept({"model": self._models.all[0].id, "input": "a"})], deadline)
        if answer.status != 200:
            raise RuntimeError("the engine makes no finite vector of a good text")

    def answer_each(
        self, asked: Iterable[tuple[Mapping[str, Any], Payer]], deadline: float | None = None, seconds: float = inf
    ) -> Iterator[Answered | Exception]:
        """What each body gets from its own payer, in order, as if it had come alone; or for what it has to be asked for
        again: DeadlineError where there is no time for it beside those before, a minute's 429, or whatever else came in
        its way and in no other's. `seconds`: all the time that there is for any of them; what takes longer gets 504.

        The engine is given as many together as have 2,048 runs, and no more of them until their answers are taken.
        """
        turn: list[_Found] = []
        for body, payer in asked:
            found = self._begin(body, payer, turn, deadline, seconds)
            if turn and _runs([*turn, found]) > MAX_INPUTS:
                yield from self._together(turn, deadline, seconds)
                turn = []
            turn.append(found)
        yield from self._together(turn, deadline, seconds)

    def _begin(
        self, body: Mapping[str, Any], payer: Payer, turn: Sequence[_Found], deadline: float | None, seconds: float
    ) -> _Found:
        """A request that is to join those of a turn, or why it does not."""
        try:
            work = self._accept(body)
            if isinstance(work, _Work):
                before = sum(each.cost for each in turn if isinstance(each, _Work))
                late = self._late(work, before, deadline, seconds)
                return late or self._refused(payer.caller, payer, [work], by_minute=True) or work
        except Exception as error:  # whatever is wrong with one is no other's
            return error
        return work

    def _late(self, work: _Work, before: float, deadline: float | None, seconds: float) -> Exception | None:
        """Why by the measured rate it is not begun, with so much to be done before it."""
        pace, left = self._engine.pace, inf if deadline is None else deadline - time.monotonic()
        if left > 0 and not before and pace.is_doubtful:
            return None
        if pace.seconds(work.cost) > _MOST * seconds > 0:
            return _too_long(work, seconds)
        return DeadlineError() if pace.seconds(before + work.cost) > left else None

    def _together(self, turn: Sequence[_Found], deadline: float | None, seconds: float) -> list[Answered | Exception]:
        answers = iter(self._attempt([each for each in turn if isinstance(each, _Work)], deadline, seconds))
        return [next(answers) if isinstance(each, _Work) else _final(each) for each in turn]

    def _attempt(self, works: list[_Work], deadline: float | None, seconds: float) -> list[Answered | Exception]:
        """Together, and where that fails each for itself."""
        begun = time.monotonic()
        try:
            return [*self._encode([*works], deadline)]
        except DeadlineError as error:
            if len(works) == 1 and time.monotonic() - begun > seconds / 2 and self._took_it_all(works[0], seconds):
                return [Answered.refused(_too_long(works[0], seconds))]
            return [error] * len(works)
        except Exception as error:
            if len(works) == 1:
                return [error]
            return [answer for work in works for answer in self._attempt([work], deadline, seconds)]

    def _took_it_all(self, work: _Work, seconds: float) -> bool:
        """Whether a piece of work has had so much time for itself alone: nobody else took of it, or by the measured
        rate it needs as much."""
        return not self._has_many_callers or self._engine.pace.seconds(work.cost) > seconds / 2

    def _accept(self, body: Mapping[str, Any]) -> _Work | ApiError:
        try:
            request = embeddings.check(body, self._models, self._intake.rules)
            budget = Budget(self._engine.pace, None, float("inf"))
            return _Work(request, self._intake.prompts(self._engine.tokens, request, budget), budget.cost)
        except ApiError as error:
            return error

    def _limit(self, found: list[_Work | ApiError], payer: Payer, counted: Counted) -> None:
        """Count all of them at once, where the month has room for all; else one after the other."""
        limits = (payer.caller.limits.monthly, payer.caller.account_limits.monthly)
        if not any(limits):
            return
        caller = replace(payer.caller, limits=limits[0], account_limits=limits[1])
        places = [place for place, each in enumerate(found) if isinstance(each, _Work) and place not in counted]
        if not places:
            return
        if not self._refused(caller, payer, [found[place] for place in places]):
            counted.update(places)
            return
        for place in places:
            if refused := self._refused(caller, payer, [found[place]]):
                found[place] = refused
            else:
                counted.update([place])

    def _refused(
        self, caller: Caller, payer: Payer, works: Sequence[_Work | ApiError], *, by_minute: bool = False
    ) -> ApiError | None:
        tokens = sum(each.prompts.tokens for each in works if isinstance(each, _Work))
        model = self._models.all[0].id
        demand = Demand(model, tokens, usd(tokens, payer.price), payer.time.timestamp(), by_minute=by_minute)
        try:
            self._counters.take(caller, demand)
        except ApiError as error:
            return error
        return None

    def _encode(self, found: list[_Work | ApiError], deadline: float | None) -> list[Answered]:
        while True:
            places = [place for place, each in enumerate(found) if isinstance(each, _Work)]
            works = [each for each in found if isinstance(each, _Work)]
            try:
                rows = self._engine.encode([ids for work in works for ids in work.prompts.ids], deadline)
            except NonFiniteVectorError as error:
                bad, run = 0, error.index  # whose run it is, and which of its own
                while run >= len(works[bad].prompts.ids):
                    run -= len(works[bad].prompts.ids)
                    bad += 1
                found[places[bad]] = inputs.non_finite(works[bad].prompts.input_of(run))
                continue
            return self._rendered(found, rows)

    def _rendered(self, found: list[_Work | ApiError], rows: Matrix) -> list[Answered]:
        answers, start = list[Answered](), 0
        for each in found:
            if isinstance(each, ApiError):
                answers.append(Answered.refused(each))
                continue
            prompts = each.prompts
            end = start + len(prompts.ids)
            answers.append(Answered(200, render.answer(each.request, prompts, rows[start:end]), prompts.tokens))
            start = end
        return answers


def _runs(turn: Iterable[_Found]) -> int:
    return sum(len(each.prompts.ids) for each in turn if isinstance(each, _Work))


def _final(error: Exception) -> Answered | Exception:
    """An error as its answer, unless there may be another later."""
    if not isinstance(error, ApiError) or (error.status == 429 and "x-should-retry" not in error.headers):
        return error
    return Answered.refused(error)


def _too_long(work: _Work, seconds: float) -> ApiError:
    return errors.DEADLINE.error(n=work.prompts.tokens, s=max(1, round(seconds)))
