"""Token ids to vectors. One text a run, no padding and no mask, so that a vector never depends on its company."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from handler.engine import cpu
from handler.engine.layer import Layer
from handler.engine.pace import Pace
from handler.engine.session import RunOptions, Session, open_session, run_options
from handler.engine.tokens import Tokens
from handler.settings import Settings

log = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float32]


class NonFiniteVectorError(Exception):
    """The model produced NaN or infinity for the input of this index."""

    def __init__(self, index: int) -> None:
        super().__init__(f"input {index}")
        self.index = index


class DeadlineError(Exception):
    """The deadline came before all texts were encoded; what was running has been stopped."""


class Engine:
    """A loaded layer. Its methods may be called from many threads; runs take turns, a text each, on all cores."""

    def __init__(self, tokens: Tokens, session: Session, dimensions: int) -> None:
        self.tokens, self.dimensions, self.pace = tokens, dimensions, Pace(dimensions)
        self._session = session
        self._turn = threading.Lock()

    @classmethod
    def load(cls, layer: Layer, settings: Settings) -> "Engine":
        """Tokenizer and session at the same time, then one run, after which nothing is left to be done lazily."""
        share = cpu.share(settings)
        threads = settings.threads or max(1, round(share))
        packed = not settings.aws_lambda_runtime_api  # there a cold start fetches each byte that it reads
        start = time.perf_counter()
        with ThreadPoolExecutor(1, "session") as loader:  # onnxruntime lets the interpreter go while it loads
            loading = loader.submit(open_session, layer, threads, spin=share >= threads, packed=packed)
            tokens = Tokens(layer.folder)
            read = time.perf_counter()
            session = loading.result()
        opened = time.perf_counter()
        engine = cls(tokens, session, layer.manifest.dimensions)
        engine.encode(tokens.encode(["warm"]))
        engine.pace = Pace(engine.dimensions)  # the first run is like no other
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

    def encode(self, ids: Sequence[Sequence[int]], deadline: float | None = None) -> Matrix:
        """float32 [len(ids), dimensions], L2-normalized, in the order of `ids` (special tokens included).

        Raises NonFiniteVectorError before anything else is done with such a vector, and DeadlineError where
        `deadline`, a time of time.monotonic(), comes first.
        """
        vectors = np.empty((len(ids), self.dimensions), np.float32)
        with _stop(deadline) as stop:
            for index, tokens in enumerate(ids):
                feed = {"input_ids": np.array([tokens], np.int64)}
                with self._my_turn(deadline):
                    if stop is not None and stop.terminate:
                        raise DeadlineError
                    start = time.perf_counter()
                    try:
                        vectors[index] = self._run(feed, stop)
                    finally:  # what was stopped would have taken longer: it counts as what it took
                        self.pace.measured(self.pace.cost([len(tokens)]), time.perf_counter() - start)
                if not np.isfinite(vectors[index]).all():
                    raise NonFiniteVectorError(index)
        return vectors

    def _run(self, feed: dict[str, npt.NDArray[np.int64]], stop: RunOptions | None) -> npt.NDArray[np.float32]:
        try:
            vectors = self._session.run(["dense"], feed, stop)[0]
        except Exception:  # onnxruntime's own exceptions have no common base
            if stop is not None and stop.terminate:
                raise DeadlineError from None
            raise
        vector: npt.NDArray[np.float32] = vectors[0]
        return vector

    @contextmanager
    def _my_turn(self, deadline: float | None) -> Iterator[None]:
        """A run has all cores; another caller's text comes next."""
        if not self._turn.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic())):
            raise DeadlineError
        try:
            yield
        finally:
            self._turn.release()


@contextmanager
def _stop(deadline: float | None) -> Iterator[RunOptions | None]:
    """Options for runs that end at the deadline; None for none."""
    if deadline is None:
        yield None
        return
    options = run_options()
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()
