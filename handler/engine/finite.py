"""Vectors that fp16 has no numbers for, in fp32."""

import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from handler.engine.manifest import LayerError
from handler.engine.session import RunOptions, Session

log = logging.getLogger(__name__)


class Finite:
    """A session in fp16 that runs a text again, alone and in fp32 arithmetic, where its vector is not finite; one that
    this does not mend stays as it was. `open_fp32` opens the session for it when it is first needed."""

    def __init__(self, fp16: Session, open_fp32: Callable[[], Session]) -> None:
        self._fp16 = fp16
        self._open: Callable[[], Session] | None = open_fp32
        self._fp32: Session | None = None

    def run(
        self, outputs: list[str], feed: dict[str, npt.NDArray[np.int64]], options: RunOptions | None = None, /
    ) -> list[npt.NDArray[np.float32]]:
        """Of outputs with a row for each text. Runs come one at a time, as a GPU's do (targets.py)."""
        found = self._fp16.run(outputs, feed, options)
        broken = np.flatnonzero(~np.all([np.isfinite(each).all(axis=1) for each in found], axis=0))
        if not len(broken) or not (fp32 := self._opened()):
            return found
        found = [each.copy() for each in found]
        texts = np.split(feed["input_ids"], feed["lengths"].cumsum()[:-1])
        for text in broken:
            alone = {"input_ids": texts[text], "lengths": feed["lengths"][text : text + 1]}
            try:
                again = fp32.run(outputs, alone, options)
            except Exception as error:  # onnxruntime's own exceptions have no common base
                if options and options.terminate:
                    raise
                log.error("%d tokens that fp16 has no finite vector of fail in fp32: %s", len(texts[text]), error)
                continue
            for each, [row] in zip(found, again, strict=True):
                each[text] = row
        return found

    def _opened(self) -> Session | None:
        """Opened once: where there is no room for it, each try would take seconds of everybody's."""
        if self._open:
            opening, self._open = self._open, None
            try:
                self._fp32 = opening()
            except LayerError as error:
                log.error("texts that fp16 has no finite vector of stay without: %s", error)
        return self._fp32
