"""One piece of embedding work, whichever door it came through: limited, encoded, answered, recorded, in that order."""

import logging
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from handler import models, render, settings, store
from handler.accepted import Accepted, Answer, Door
from handler.billing import prices
from handler.billing.buckets import cost as usd
from handler.billing.keys import Caller, Keys
from handler.billing.ledger import Ledger, Outcome, Record, Work
from handler.billing.limits import Counters
from handler.billing.outbox import Outbox
from handler.billing.prices import Prices
from handler.contract import body, embeddings, errors, inputs, payload
from handler.contract.embeddings import EmbeddingRequest, Rules
from handler.contract.limits import Demand
from handler.contract.models import Models
from handler.ending import UnderWay
from handler.engine.budget import Budget, LateError
from handler.engine.engine import DeadlineError, Engine, Matrix, NonFiniteVectorError
from handler.engine.layer import Layer, open_layer
from handler.engine.prompts import Prompts
from handler.intake import Intake
from handler.reach import RETRY_S, within_reach
from handler.results import Place, Results
from handler.settings import Settings

if TYPE_CHECKING:
    from handler.bulk import Bulk
    from handler.payers import Payers

log = logging.getLogger(__name__)


class Service:
    """The model, keys, prices, limits and ledger of a process. `load()` makes it ready; until then work is 503."""

    def __init__(
        self, config: Settings, layer: Layer, keys: Keys, prices: Prices, counters: Counters, ledger: Ledger
    ) -> None:
        self.settings, self.keys = config, keys
        self.models = Models(models.of_layer(layer.manifest, config))
        self._layer, self._prices, self._counters, self._ledger = layer, prices, counters, ledger
        self._intake = Intake(config, layer)
        self._results = Results(store.s3, config.results_bucket) if config.results_bucket else None
        self._under_way = UnderWay()
        self._engine: Engine | None = None
        self._loading = threading.Lock()

    @classmethod
    def open(cls, config: Settings) -> "Service":
        """Checks settings and layer, loads nothing yet. Raises SettingError or LayerError, which say what to do."""
        settings.required(config, "keys_table", "usage_table", *(["results_bucket"] if config.jobs_table else []))
        if config.jobs_table and not config.plans_queue:
            log.warning("PLANS_QUEUE: not set. Batches are taken, and begun by the hourly event alone.")
        layer = open_layer(config)
        queue, function = config.ledger_queue, config.aws_lambda_function_name
        outbox = Outbox(store.sqs, queue, function) if queue else None
        ledger = Ledger(store.ledger, config.usage_table, config.entries_table, outbox, config.retry_window)
        by_settings = {layer.manifest.id: prices.settled(config, layer.manifest.created)}
        listed = Prices(store.dynamodb, config.prices_table, by_settings)
        counters = Counters(store.dynamodb, config.limits_table)
        return cls(config, layer, Keys(store.dynamodb, config.keys_table), listed, counters, ledger)

    @property
    def ready(self) -> bool:
        """Whether a token has gone through the model."""
        return self._engine is not None

    @property
    def ledger(self) -> Ledger:
        """What is billed."""
        return self._ledger

    @property
    def bulk(self) -> "Bulk":
        """Many requests at once, for doors that bring them so. Raises 503 while the model loads."""
        from handler.bulk import Bulk

        if self._engine is None:
            raise errors.try_again(errors.LOADING, RETRY_S)
        many = self.settings.has_many_callers
        return Bulk(self.models, self._intake, self._counters, self._engine, has_many_callers=many)

    @property
    def payers(self) -> "Payers":
        """Who pays where no bearer key comes along."""
        from handler.payers import Payers

        return Payers(self.keys, self._prices, self.models.all[0].id)

    @property
    def rules(self) -> Rules:
        """What the settings, and the layer, decide about every request."""
        return self._intake.rules

    def load(self) -> None:
        """Load the model and run it once, and connect to the tables meanwhile. Raises LayerError."""
        with self._loading, ThreadPoolExecutor(1, "tables") as pool:
            if self._engine is None:
                tables = [pool.submit(warm) for warm in (self.keys.warm, self._prices.warm, self._ledger.warm)]
                self._engine = Engine.load(self._layer, self.settings)
                for each in tables:
                    each.result()
                if self._layer.manifest.weights != "real":
                    log.warning("%s has seeded weights: its vectors mean nothing", self._layer.manifest.id)

    def priced(self) -> Models:
        """The models at what they cost now, by the list. Raises 503 where that is not known."""
        with within_reach("Prices table"):
            now = datetime.now(UTC)
            return Models(*(models.priced(model, self._prices.listed(model.id, now)) for model in self.models.all))

    def authenticate(self, clear: str) -> Caller:
        """The caller of a clear key. Raises 401, or 503 where the table is out of reach."""
        with within_reach("Keys table"):
            caller = self.keys.find(clear)
        if caller is None:
            raise errors.WRONG_KEY.error()
        return caller

    def read(self, raw: bytes) -> EmbeddingRequest:
        """The checked request in a body; everything about it that can be wrong without the tokenizer is a 400 here."""
        return embeddings.check(body.read(raw), self.models, self._intake.rules)

    def accept(self, request: EmbeddingRequest, caller: Caller, work: Work, door: Door) -> Accepted:
        """A request with all that can be refused behind it. Raises ApiError, and then nothing has run or is billed.

        What is accepted must be answered or dropped.
        """
        engine = self._engine
        if engine is None:
            raise errors.try_again(errors.LOADING, RETRY_S)
        if work.identity is not None and not self._ledger.knows_identities:
            log.error("ENTRIES_TABLE is not set, and a request has an Idempotency-Key")
            raise errors.try_again(errors.STORE_UNAVAILABLE, RETRY_S)
        door.clock.lap("parse")
        door.left()
        budget = Budget(engine.pace, door.deadline, door.seconds, door.gone)
        try:
            prompts = self._intake.prompts(engine.tokens, request, budget)
        except LateError as error:
            raise _late(error.tokens, door.seconds, again=error.again) from None
        fits, cost = self._fits(request, prompts, door), budget.cost
        alone, left = engine.pace.seconds(cost), door.left()
        if alone > left and not budget.is_doubtful:
            raise _late(prompts.tokens, door.seconds, again=alone < door.seconds)
        door.clock.lap("tokenize")
        with within_reach("Prices table"):
            price = self._prices.at(request.model.id, caller.account, work.time).of(work.door)
        demand = Demand(request.model.id, prompts.tokens, usd(prompts.tokens, price), work.time.timestamp())
        with within_reach("Limits table"):
            headers = self._counters.take(caller, demand)
        if caller.limits or caller.account_limits:
            door.clock.lap("limits")
        with errors.carrying(headers):
            ahead = engine.pace.take(cost, min(self.settings.max_queue_seconds, max(0.0, left - alone)))
            if ahead is not None:
                raise errors.try_again(errors.OVERLOADED, min(max(math.ceil(ahead), 1), 10))
        if request.arrays:
            headers |= {"x-emblet-token-arrays": self._intake.ids_are}
        return Accepted(request, caller, work, prompts, price, headers, not fits, door, engine, cost)

    def answer(self, accepted: Accepted) -> Answer:
        """The answer, once it is made, where it is too large for its door in the results bucket, and its record is in
        the ledger or on its way there, in this order. Raises ApiError, and then nothing is billed."""
        request, prompts, clock = accepted.request, accepted.prompts, accepted.door.clock
        try:
            with self._under_way.one(), errors.carrying(accepted.headers):
                rows = self._encode(accepted)
                clock.lap("encode")
                answer = render.answer(request, prompts, rows)
                clock.lap("render")
                location = self._store(accepted, answer) if accepted.elsewhere else None
                if self._record(accepted) is Outcome.REPLAYED:
                    accepted.headers |= {"x-emblet-replay": "true"}
                clock.lap("record")
        finally:
            accepted.drop()
        packed = request.encoding_format == "base64"
        if location is None:
            return Answer(200, answer, accepted.headers, prompts.tokens, clock.laps, packed)
        headers = accepted.headers | {"location": location.url}
        body = render.elsewhere(location.url, location.expires_at)
        return Answer(303, body, headers, prompts.tokens, clock.laps, packed)

    def close(self, seconds: float) -> None:
        """The process ends: what is not embedded yet is dropped, what is has so many seconds for its record."""
        if self._engine is not None:
            self._engine.close()
        if not self._under_way.wait(seconds):
            log.error("The process ends, and work that was embedded may have no record; no answer to it has left.")

    def _fits(self, request: EmbeddingRequest, prompts: Prompts, door: Door) -> bool:
        """Whether the answer fits its door; if not, it can lie elsewhere. Raises 400 where it can do neither."""
        model = request.model
        try:
            payload.check(request.inputs, request.encoding_format, model.dimensions, door.room, prompts.changed)
        except errors.ApiError:
            if self._results is None or not door.redirects:
                raise
            return False
        return True

    def _encode(self, accepted: Accepted) -> Matrix:
        """float32 [runs, dimensions]. Raises 500 for a vector that is none, 504 or 503 at the deadline."""
        prompts, pace, door = accepted.prompts, accepted.engine.pace, accepted.door
        try:
            return accepted.engine.encode(prompts.ids, door.deadline, door.gone)
        except NonFiniteVectorError as error:
            raise inputs.non_finite(prompts.input_of(error.index)) from error
        except DeadlineError as error:
            alone = pace.seconds(accepted.cost)  # 0 where nothing is known
            raise _late(prompts.tokens, door.seconds, again=0 < alone < door.seconds) from error

    def _store(self, accepted: Accepted, answer: bytes) -> Place:
        """Where an answer that does not fit its door lies. Raises 503."""
        assert self._results is not None  # noqa: S101  (else it would not have been accepted)
        with within_reach("Results bucket"):
            place = self._results.put(answer, accepted.caller.account, accepted.work.id)
        accepted.door.clock.lap("store")
        return place

    def _record(self, accepted: Accepted) -> Outcome:
        """Raises 400 where an Idempotency-Key is another request's, or 503."""
        model, caller = accepted.request.model, accepted.caller
        tokens = accepted.prompts.tokens
        record = Record(accepted.work, caller.account, caller.key_id, model.id, tokens, 1, accepted.price)
        try:
            outcome = self._ledger.write(record)
        except store.StoreUnavailableError as error:
            log.error("Usage table out of reach, no answer given: %s %s", error, record)
            raise errors.try_again(errors.STORE_UNAVAILABLE, RETRY_S) from error
        if outcome is Outcome.REUSED:
            raise errors.KEY_REUSED.error(param="Idempotency-Key")
        return outcome


def _late(tokens: int, seconds: float, *, again: bool) -> errors.ApiError:
    """504 for work that takes longer than all the time it was given; 503 where that went to others, so that another try
    may be in time."""
    if again:
        return errors.try_again(errors.OVERLOADED, RETRY_S)
    return errors.DEADLINE.error(n=tokens, s=max(1, round(seconds)))
