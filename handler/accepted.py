"""A request on its way through the service: what its door can take, what it is once accepted, and its answer."""

import math
import threading
import time
from dataclasses import dataclass, field
from decimal import Decimal

from handler.billing.keys import Caller
from handler.billing.ledger import Work
from handler.contract import errors
from handler.contract.embeddings import EmbeddingRequest
from handler.engine.engine import Engine
from handler.engine.prompts import Prompts
from handler.reach import RETRY_S


class Clock:
    """Milliseconds between one `lap` and the next, by name, from `start` on (of time.perf_counter(); None: now)."""

    def __init__(self, start: float | None = None) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter() if start is None else start

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = (now - self._last) * 1e3
        self._last = now


@dataclass(frozen=True)
class Door:
    """What the way that a request came by can take: `room` bytes of an answer (None: any number); whether it
    `redirects` to a larger one; and the `deadline`, of time.monotonic(), for the answer to be made (None: none), which
    lay `seconds` ahead when the request came; `gone` is set once nobody waits for it any more; `clock` has run since it
    came."""

    room: int | None = None
    redirects: bool = False
    deadline: float | None = None
    seconds: float = math.inf
    gone: threading.Event = field(default_factory=threading.Event)
    clock: Clock = field(default_factory=Clock)

    def left(self) -> float:
        """Seconds until the deadline. Raises 503 where it has passed while the request waited to be read."""
        if self.deadline is None:
            return math.inf
        if (left := self.deadline - time.monotonic()) <= 0:
            raise errors.try_again(errors.OVERLOADED, RETRY_S)
        return left


@dataclass
class Accepted:
    """A request that nothing stands against: counted against its limits, with its place in the engine's queue, which it
    holds until it is answered or dropped. `price`: USD per million tokens at the work's time; `headers` go out with
    whatever becomes of it; `door`: what it came by."""

    request: EmbeddingRequest
    caller: Caller
    work: Work
    prompts: Prompts
    price: Decimal
    headers: dict[str, str]
    elsewhere: bool
    door: Door
    engine: Engine
    cost: float
    _holds: bool = True

    def drop(self) -> None:
        """Give the place in the queue back, once however often it is called."""
        if self._holds:
            self._holds = False
            self.engine.pace.give_back(self.cost)


@dataclass(frozen=True)
class Answer:
    """The response's status, body and headers; what was billed for it, and each part's time in ms. `packed`: whether a
    content coding would gain nothing."""

    status: int
    body: bytes
    headers: dict[str, str]
    tokens: int
    timing: dict[str, float]
    packed: bool
