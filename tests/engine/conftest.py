import math
import time
from array import array
from collections.abc import Iterable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from handler.engine.budget import Budget
from handler.engine.engine import Engine
from handler.engine.layer import open_layer
from handler.engine.sessions import Sessions
from handler.engine.turns import Turns
from handler.settings import Settings

HOUSE = Path(__file__).resolve().parents[2]


def load(folder: Path, threads: int = 0) -> Engine:
    config = Settings(model_dir=str(folder), threads=threads)
    return Engine.load(open_layer(config), config)


def single(sessions: Sessions) -> Any:
    """The session of one thread, or None where there is none: no run has to wait for it, but this does."""
    asked = sessions.single
    if sessions._single is not None:
        wait([sessions._single], 60)
        asked = sessions.single
    return None if asked is sessions.whole else asked


def cost(engine: Engine, ids: Iterable[list[int]]) -> float:
    """Of encoding these, for `pace`."""
    budget = Budget(engine.pace, None, math.inf)
    budget.add(array("i", each) for each in ids)
    return budget.cost


def queued(shared: Turns, calls: int) -> None:
    """Until so many calls have texts that wait."""
    for _ in range(1000):
        if len(shared._calls) == calls:
            return
        time.sleep(0.005)
    raise AssertionError(shared._calls)


def peak_kib() -> int:
    """Most memory that this process has held at once. `getrusage` would count what it was forked from too."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])


@pytest.fixture(scope="session")
def engine(minilm: Path) -> Engine:
    return load(minilm)
