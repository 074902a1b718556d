"""Token ids to vectors. No padding and no mask; a vector never depends on its company, on a GPU save for last bits."""

import logging
import math
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

from handler.engine import cpu
from handler.engine.calls import DeadlineError, Matrix, NonFiniteVectorError
from handler.engine.layer import Layer
from handler.engine.manifest import FP32
from handler.engine.pace import Pace
from handler.engine.session import Session, open_fp32, open_packed, open_session
from handler.engine.sessions import Sessions
from handler.engine.targets import CPU, TARGETS, Target
from handler.engine.tokens import Tokens
from handler.engine.turns import Turns
from handler.engine.watch import watch, watched
from handler.settings import Settings

__all__ = ["DeadlineError", "Engine", "Matrix", "NonFiniteVectorError"]

log = logging.getLogger(__name__)

_WARM = 512  # tokens of each text of the first run, where that is a full one


class Engine:
    """A loaded layer. Its methods may be called from many threads; texts take turns on all cores, or on the GPU.

    `together`: how many tokens short texts may have that share a run, where the layer's vectors allow it; `at_once`:
    how many runs there may be; `most`: how many requests its queue takes; `open_single`: opens a session for those
    beside others; `target`: what runs cost there, and how many texts may share one.
    """

    def __init__(
        self,
        tokens: Tokens,
        session: Session,
        dimensions: int,
        together: int = 0,
        at_once: int = 1,
        most: float = math.inf,
        open_single: Callable[[], Session | None] | None = None,
        target: Target = CPU,
    ) -> None:
        self.tokens, self.dimensions = tokens, dimensions
        self.pace = Pace(dimensions, together, most=most, target=target)
        self._turns = Turns(Sessions(session, open_single), dimensions, self.pace, together, at_once, target.texts)

    @classmethod
    def load(cls, layer: Layer, settings: Settings) -> "Engine":
        """Tokenizer and session at the same time, then one run, after which nothing is left to be done lazily."""
        share, target = cpu.share(settings), TARGETS[layer.manifest.target]
        threads = 1 if target.alone else settings.threads or max(1, round(share))
        packed = not settings.aws_lambda_runtime_api  # there a cold start fetches each byte that it reads
        start = time.perf_counter()
        with ThreadPoolExecutor(1, "session") as loader:  # onnxruntime lets the interpreter go while it loads
            loading = loader.submit(open_session, layer, threads, spin=share >= threads, packed=packed)
            tokens = Tokens(layer.folder)
            read = time.perf_counter()
            session = loading.result()
        finite = None
        if FP32 in layer.manifest.files:
            from handler.engine.finite import Finite  # which no CPU needs

            session = finite = Finite(session, partial(open_fp32, layer))
        opened = time.perf_counter()
        alone = layer.manifest.activation_scales == "dynamic"  # scales are by what is in a run
        dimensions = layer.manifest.dimensions
        most_s = settings.max_run_seconds if settings.has_many_callers else 0
        with watched(most_s) if most_s else nullcontext():
            # Its pace is like no other's.
            first = _first(tokens, layer.manifest.context, target.warm)
            cls(tokens, session, dimensions, target.warm).encode(first)
        # Without packed matrices to share, a session of its own would hold them a second time.
        single = partial(open_packed, layer, 1, spin=False) if packed and threads > 1 else None
        together, most = 0 if alone else target.together, settings.max_queue_requests
        engine = cls(tokens, session, dimensions, together, threads, most, single, target)
        if most_s:
            watch(engine._turns, most_s, first, lambda: finite is not None and finite.prepares)
        log.info(
            "loaded %s: tokenizer %.0f ms, session %.0f ms, first run %.0f ms, %d threads of %.2f vCPU",
            layer.manifest.id,
            (read - start) * 1e3,
            (opened - start) * 1e3,
            (time.perf_counter() - opened) * 1e3,
            threads,
            share,
        )
        return engine

    def encode(
        self, ids: Sequence[Sequence[int]], deadline: float | None = None, gone: threading.Event | None = None
    ) -> Matrix:
        """float32 [len(ids), dimensions], L2-normalized, in the order of `ids` (special tokens included); what is
        there twice is encoded once.

        Raises NonFiniteVectorError before anything else is done with such a vector, and DeadlineError where
        `deadline`, a time of time.monotonic(), comes first, or `gone`, an event that ends it between two runs.
        """
        keys = [array("i", each).tobytes() for each in ids]
        texts = dict(zip(keys, ids, strict=True))
        numbers = {key: number for number, key in enumerate(texts)}
        places = [numbers[key] for key in keys]
        try:
            vectors = self._turns.vectors([*texts.values()], deadline, gone)
        except NonFiniteVectorError as error:
            raise NonFiniteVectorError(places.index(error.index)) from None
        return vectors if len(vectors) == len(places) else vectors[places]

    def close(self) -> None:
        """End all that is under way, and all to come, with DeadlineError: the process ends."""
        self._turns.close()


def _first(tokens: Tokens, context: int, together: int) -> list[list[int]]:
    """Ids of a word, and of other texts of so many tokens together, no two of which are alike."""
    [ids] = tokens.encode(["warm"])
    length = min(context, _WARM)
    return [ids, *(ids[:1] * (length - number) for number in range(together // length))]
