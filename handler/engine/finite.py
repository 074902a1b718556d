"""Vectors that fp16 has no numbers for, in fp32."""

import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from handler.engine.manifest import LayerError
from handler.engine.session import RunOptions, Session

log = logging.getLogger(__name__)


class Finite:
    """A session in fp16 that runs texts again in fp32 arithmetic whose vectors are not finite; one that this does not
    mend stays as it was. `open_fp32` opens the session for it when it is first needed; `prepares`: whether the last run
    has done so, and taken as long as a first run may."""

    def __init__(self, fp16: Session, open_fp32: Callable[[], Session]) -> None:
        self._fp16, self.prepares = fp16, False
        self._open: Callable[[], Session] | None = open_fp32
        self._fp32: Session | None = None

    def run(
        self, outputs: list[str], feed: dict[str, npt.NDArray[np.int64]], options: RunOptions | None = None, /
    ) -> list[npt.NDArray[np.float32]]:
        """Of outputs with a row for each text. Runs come one at a time, as a GPU's do (targets.py)."""
        self.prepares = False
        found = self._fp16.run(outputs, feed, options)
        broken = np.flatnonzero(~np.all([np.isfinite(each).all(axis=1) for each in found], axis=0))
        if not len(broken):
            return found
        found, lengths = [each.copy() for each in found], feed["lengths"]
        texts = np.split(feed["input_ids"], lengths.cumsum()[:-1])

        def again(fp32: Session, some: npt.NDArray[np.int64]) -> None:
            """Together, and where that fails each alone."""
            row = {"input_ids": np.concatenate([texts[text] for text in some]), "lengths": lengths[some]}
            try:
                made = fp32.run(outputs, row, options)
            except Exception as error:  # onnxruntime's own exceptions have no common base
                if options and options.terminate:
                    raise
                if len(some) == 1:
                    log.error("%d tokens that fp16 has no finite vector of fail in fp32: %s", lengths[some[0]], error)
                    return
                for text in some:
                    again(fp32, np.array([text]))
            else:
                for each, rows in zip(found, made, strict=True):
                    each[some] = rows

        if session := self._opened():
            again(session, broken)
        return found

    def _opened(self) -> Session | None:
        """Opened once: where there is no room for it, each try would take seconds of everybody's."""
        if self._open:
            opening, self._open, self.prepares = self._open, None, True
            try:
                self._fp32 = opening()
            except LayerError as error:
                log.error("texts that fp16 has no finite vector of stay without: %s", error)
        return self._fp32
