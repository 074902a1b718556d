"""Token ids to vectors. One text a run, no padding and no mask, so that a vector never depends on its company."""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from handler.engine import cpu
from handler.engine.layer import Layer
from handler.engine.session import Session, open_session
from handler.engine.tokens import Tokens
from handler.settings import Settings

log = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float32]


class NonFiniteVectorError(Exception):
    """The model produced NaN or infinity for the input of this index."""

    def __init__(self, index: int) -> None:
        super().__init__(f"input {index}")
        self.index = index


class Engine:
    """A loaded layer. Its methods may be called from many threads; runs take turns, a text each, on all cores."""

    def __init__(self, tokens: Tokens, session: Session, dimensions: int) -> None:
        self.tokens, self.dimensions = tokens, dimensions
        self._session = session
        self._turn = threading.Lock()

    @classmethod
    def load(cls, layer: Layer, settings: Settings) -> "Engine":
        """Tokenizer and session at the same time, then one run, after which nothing is left to be done lazily."""
        share = cpu.share(settings)
        threads = settings.threads or max(1, round(share))
        start = time.perf_counter()
        with ThreadPoolExecutor(1, "session") as loader:  # onnxruntime lets the interpreter go while it loads
            loading = loader.submit(open_session, layer.folder, threads, spin=share >= threads)
            tokens = Tokens(layer.folder)
            read = time.perf_counter()
            session = loading.result()
        opened = time.perf_counter()
        engine = cls(tokens, session, layer.manifest.dimensions)
        engine.encode(tokens.encode(["warm"]))
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

    def encode(self, ids: Sequence[Sequence[int]]) -> Matrix:
        """float32 [len(ids), dimensions], L2-normalized, in the order of `ids` (special tokens included).

        Raises NonFiniteVectorError before anything else is done with such a vector.
        """
        vectors = np.empty((len(ids), self.dimensions), np.float32)
        for index, tokens in enumerate(ids):
            feed = {"input_ids": np.array([tokens], np.int64)}
            with self._turn:  # a run has all cores; another caller's text comes next
                vectors[index] = self._session.run(["dense"], feed)[0][0]
            if not np.isfinite(vectors[index]).all():
                raise NonFiniteVectorError(index)
        return vectors
