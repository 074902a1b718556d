"""One piece of embedding work, whichever door it came through: limited, encoded, answered, recorded, in that order."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from handler import render, settings, store
from handler.billing import prices
from handler.billing.keys import Caller, Keys
from handler.billing.ledger import Ledger, Record, Work
from handler.billing.limits import Counters
from handler.contract import body, embeddings, errors, payload
from handler.contract.embeddings import EmbeddingRequest
from handler.contract.models import Model, Models
from handler.engine.engine import Engine, NonFiniteVectorError
from handler.engine.layer import Layer, open_layer
from handler.engine.manifest import Manifest
from handler.intake import Intake
from handler.settings import Settings

log = logging.getLogger(__name__)

RETRY_S = 2  # what a client is told while the model loads or a table is out of reach


@dataclass(frozen=True)
class Answer:
    """The bytes of the response body, their form, what was billed for them, each part's time in ms, and headers."""

    body: bytes
    tokens: int
    timing: dict[str, float]
    encoding_format: str
    headers: dict[str, str]


class Service:
    """The model, keys, limits and ledger of a process. `load()` makes it ready; until then work is refused with 503."""

    def __init__(self, config: Settings, layer: Layer, keys: Keys, counters: Counters, ledger: Ledger) -> None:
        self.settings, self.keys = config, keys
        self.models = Models(_wire_model(layer.manifest, config))
        self._layer, self._counters, self._ledger = layer, counters, ledger
        self._intake = Intake(config, layer)
        self._engine: Engine | None = None
        self._loading = threading.Lock()

    @classmethod
    def open(cls, config: Settings) -> "Service":
        """Checks settings and layer, loads nothing yet. Raises SettingError or LayerError, which say what to do."""
        settings.required(config, "keys_table", "usage_table")
        layer = open_layer(config)
        keys, ledger = Keys(store.dynamodb, config.keys_table), Ledger(store.dynamodb, config.usage_table)
        return cls(config, layer, keys, Counters(store.dynamodb, config.limits_table), ledger)

    @property
    def ready(self) -> bool:
        """Whether a token has gone through the model."""
        return self._engine is not None

    def load(self) -> None:
        """Load the model and run it once, and connect to the tables meanwhile. Raises LayerError."""
        with self._loading, ThreadPoolExecutor(1, "tables") as pool:
            if self._engine is None:
                tables = pool.submit(self.keys.warm)
                self._engine = Engine.load(self._layer, self.settings)
                tables.result()
                if self._layer.manifest.weights != "real":
                    log.warning("%s has seeded weights: its vectors mean nothing", self._layer.manifest.id)

    def authenticate(self, clear: str) -> Caller:
        """The caller of a clear key. Raises 401, or 503 where the table is out of reach."""
        try:
            caller = self.keys.find(clear)
        except store.StoreUnavailableError as error:
            log.error("Keys table out of reach: %s", error)
            raise errors.try_again(errors.STORE_UNAVAILABLE, RETRY_S) from error
        if caller is None:
            raise errors.WRONG_KEY.error()
        return caller

    def read(self, raw: bytes) -> EmbeddingRequest:
        """The checked request in a body; everything about it that can be wrong without the tokenizer is a 400 here."""
        return embeddings.check(body.read(raw), self.models, self._intake.rules)

    def embed(self, request: EmbeddingRequest, caller: Caller, work: Work, room: int | None = None) -> Answer:
        """The answer, once its record is in the ledger. Raises ApiError, and then nothing is billed.

        `room`: bytes that the door can return, None for any number.
        """
        engine = self._engine
        if engine is None:
            raise errors.try_again(errors.LOADING, RETRY_S)
        clock = _Clock()
        prompts = self._intake.prompts(engine.tokens, request)
        tokens, listed = prompts.tokens, {"truncated": prompts.truncated, "averaged": prompts.averaged}
        payload.check(request.inputs, request.encoding_format, request.model.dimensions, room, prompts.changed)
        clock.lap("tokenize")
        left = self._take(request, caller, tokens)
        if caller.limits:
            clock.lap("limits")
        with errors.carrying(left):
            try:
                vectors = prompts.vectors(engine.encode(prompts.ids))
            except NonFiniteVectorError as error:
                index = prompts.input_of(error.index)
                raise errors.NON_FINITE.error(param=f"input[{index}]", i=index) from error
            clock.lap("encode")
            answer = render.embeddings(vectors, request.encoding_format, request.model.id, tokens, **listed)
            clock.lap("render")
            self._record(request, caller, work, tokens)
            clock.lap("record")
        if request.arrays:
            left |= {"x-emblet-token-arrays": self._intake.ids_are}
        return Answer(answer, tokens, clock.laps, request.encoding_format, left)

    def _take(self, request: EmbeddingRequest, caller: Caller, tokens: int) -> dict[str, str]:
        """Count the request against its key's limits; what its answer tells of them. Raises 429 or 503."""
        try:
            return self._counters.take(caller.key_id, caller.limits, tokens, request.model.id)
        except store.StoreUnavailableError as error:
            log.error("Limits table out of reach, request refused: %s", error)
            raise errors.try_again(errors.STORE_UNAVAILABLE, RETRY_S) from error

    def _record(self, request: EmbeddingRequest, caller: Caller, work: Work, tokens: int) -> None:
        model = request.model
        record = Record(work, caller.account, caller.key_id, model.id, tokens, 1, model.input_per_mtok)
        try:
            self._ledger.write(record)
        except store.StoreUnavailableError as error:
            log.error("Usage table out of reach, no answer given: %s %s", error, record)
            raise errors.try_again(errors.STORE_UNAVAILABLE, RETRY_S) from error


class _Clock:
    """Milliseconds between one `lap` and the next, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = (now - self._last) * 1e3
        self._last = now


def _wire_model(manifest: Manifest, config: Settings) -> Model:
    aliases = dict.fromkeys(manifest.aliases)
    for pair in filter(None, (pair.strip() for pair in config.model_aliases.split(","))):
        alias, _, target = (part.strip() for part in pair.partition("="))
        if not alias or target not in (manifest.id, *manifest.aliases):
            raise settings.SettingError(f"MODEL_ALIASES={pair}: expected `alias={manifest.id}`, the model served here.")
        aliases[alias] = None
    aliases.pop(manifest.id, None)
    price = prices.current(config, manifest.created)
    return Model(
        id=manifest.id,
        aliases=tuple(aliases),
        created=manifest.created,
        owned_by=manifest.owned_by,
        dimensions=manifest.dimensions,
        context=manifest.context,
        content_tokens=manifest.content_tokens,
        outputs=manifest.outputs,
        quantization=manifest.precision,
        weights=manifest.weights,
        revision=manifest.revision,
        description=manifest.description,
        input_per_mtok=price.input_per_mtok,
        batch_input_per_mtok=price.batch_input_per_mtok,
        priced_since=price.effective_at,
    )
