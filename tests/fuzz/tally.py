"""What came of all the cases of a run, and what the ledger must hold of them."""

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.fuzz.doors import Reply
from tests.fuzz.oracle import Verdict

_PROGRESS_S = 5.0


@dataclass
class Tally:
    """`billed`: work id of each answer with embeddings, and its tokens. `told`: whether progress is printed."""

    told: bool = False
    outcomes: Counter[str] = field(default_factory=Counter)
    billed: dict[str, int] = field(default_factory=dict)
    _start: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    @property
    def cases(self) -> int:
        return self.outcomes.total()

    def add(self, reply: Reply, verdict: Verdict, tokens: int | None) -> None:
        self.outcomes[f"{reply.status} {verdict.code or ''}".strip()] += 1
        if tokens is not None:
            self.billed[reply.headers["x-request-id"].removeprefix("req_")] = tokens
        if self.told and time.monotonic() - self._last >= _PROGRESS_S:
            self._last = time.monotonic()
            print(f"\r{self.cases} cases, {len(self.billed)} embedded ...", end="", flush=True)

    def __str__(self) -> str:
        seconds = time.monotonic() - self._start
        lines = [f"{count:>9,}  {outcome}" for outcome, count in sorted(self.outcomes.items())]
        return "\n".join([f"\n{self.cases:>9,}  cases in {seconds:.0f} s", *lines])
