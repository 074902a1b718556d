"""Many requests encoded together: each is limited and answered as if it were alone, and the engine gets all of them at
once."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from handler import render
from handler.billing.buckets import cost as usd
from handler.billing.keys import Caller
from handler.billing.limits import Counters
from handler.contract import embeddings, inputs
from handler.contract.embeddings import EmbeddingRequest
from handler.contract.errors import ApiError
from handler.contract.limits import Demand
from handler.contract.models import Models
from handler.engine.budget import Budget
from handler.engine.engine import Engine, Matrix, NonFiniteVectorError
from handler.engine.prompts import Prompts
from handler.intake import Intake
from handler.payers import Payer


@dataclass(frozen=True)
class Answered:
    """What became of a request: the response's status and body, and the tokens that are billed for it; `again`: whether
    it would get another answer later."""

    status: int
    body: bytes
    tokens: int
    again: bool = False

    @classmethod
    def refused(cls, error: ApiError) -> "Answered":
        """An error, for which nothing is billed."""
        again = error.status == 429 and "x-should-retry" not in error.headers
        return cls(error.status, error.body(), 0, again)


@dataclass
class _Work:
    """A request with all that can be refused without the engine behind it."""

    request: EmbeddingRequest
    prompts: Prompts
    cost: float


_Found = _Work | ApiError


class Bulk:
    """Answers requests by the group."""

    def __init__(self, models: Models, intake: Intake, counters: Counters, engine: Engine) -> None:
        self._models, self._intake, self._counters, self._engine = models, intake, counters, engine

    def answer(
        self, bodies: Sequence[Mapping[str, Any]], payer: Payer, deadline: float | None = None
    ) -> list[Answered]:
        """What each body of one payer gets, in order: 200, or the error that it alone is to blame for. What is counted
        is the month's: no minute limits a batch.

        Raises DeadlineError once the `deadline` of time.monotonic() has come, and StoreUnavailableError: then none is
        answered.
        """
        found = [self._accept(body) for body in bodies]
        self._limit(found, payer)
        return self._encode(found, deadline)

    def answer_each(
        self, asked: Sequence[tuple[Mapping[str, Any], Payer]], deadline: float | None = None
    ) -> list[Answered | None]:
        """What each body gets from its own payer, as if each had come alone; None where by the measured rate there is
        no time for it beside those before. Raises as `answer`."""
        found: list[_Found] = []
        places: list[int | None] = []
        cost, left = 0.0, inf if deadline is None else deadline - time.monotonic()
        for body, payer in asked:
            each = self._accept(body)
            if isinstance(each, _Work):
                late = cost > 0 and self._engine.pace.seconds(cost + each.cost) > left
                if late:
                    places.append(None)
                    continue
                cost += each.cost
                each = self._refused(payer.caller, payer, [each], by_minute=True) or each
            places.append(len(found))
            found.append(each)
        answers = self._encode(found, deadline)
        return [None if place is None else answers[place] for place in places]

    def _accept(self, body: Mapping[str, Any]) -> _Found:
        try:
            request = embeddings.check(body, self._models, self._intake.rules)
            budget = Budget(self._engine.pace, None, float("inf"))
            return _Work(request, self._intake.prompts(self._engine.tokens, request, budget), budget.cost)
        except ApiError as error:
            return error

    def _limit(self, found: list[_Found], payer: Payer) -> None:
        """Count all of them at once, where the month has room for all; else one after the other."""
        limits = (payer.caller.limits.monthly, payer.caller.account_limits.monthly)
        if not any(limits):
            return
        caller = replace(payer.caller, limits=limits[0], account_limits=limits[1])
        places = [place for place, each in enumerate(found) if isinstance(each, _Work)]
        if places and self._refused(caller, payer, [found[place] for place in places]):
            for place in places:
                if refused := self._refused(caller, payer, [found[place]]):
                    found[place] = refused

    def _refused(
        self, caller: Caller, payer: Payer, works: Sequence[_Found], *, by_minute: bool = False
    ) -> ApiError | None:
        tokens = sum(each.prompts.tokens for each in works if isinstance(each, _Work))
        model = self._models.all[0].id
        demand = Demand(model, tokens, usd(tokens, payer.price), payer.time.timestamp(), by_minute=by_minute)
        try:
            self._counters.take(caller, demand)
        except ApiError as error:
            return error
        return None

    def _encode(self, found: list[_Found], deadline: float | None) -> list[Answered]:
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

    def _rendered(self, found: list[_Found], rows: Matrix) -> list[Answered]:
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
