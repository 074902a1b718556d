"""The wall clock of Python processes, for tests that cannot wait until a minute ends."""

import time
from pathlib import Path

# Python imports a module of this name by itself, before any other.
_SITECUSTOMIZE = """
import pathlib, time

ahead, real = pathlib.Path(__file__).with_name("ahead"), time.time
time.time = lambda: real() + float(ahead.read_text())
"""


class WallClock:
    """`time.time()` of every process that is started with `env`, and of no other: monotonic clocks and datetimes, by
    which AWS's requests are signed, stay true."""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self.env = {"PYTHONPATH": str(folder)}
        self._ahead = folder / "ahead"
        self._ahead.write_text("0")

    def now(self) -> float:
        """Unix seconds, as those processes see them."""
        return time.time() + float(self._ahead.read_text())

    def set_minute_to_end_in(self, seconds: float) -> None:
        """By putting the clock back: forward, Lambda's runtime would take its call for over."""
        new = self._ahead.with_suffix(".new")
        new.write_text(str(-((time.time() + seconds) % 60)))
        new.replace(self._ahead)  # whole, for whoever reads it now
