"""A month of UTC's, as invoices and exports are asked for."""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

SETTLED_S = 3600  # after the end of a day or month: its last calls have ended by then, and rollups tell of them
LATE_S = 14 * 86400  # as long as a record may wait in the ledger queue

_MONTH = re.compile(r"([12]\d{3})-(0[1-9]|1[0-2])", re.ASCII)


@dataclass(frozen=True)
class Month:
    """Its days begin and end in UTC."""

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> "Month":
        """`2026-11`. Raises ValueError."""
        if not (found := _MONTH.fullmatch(text)):
            raise ValueError(f"{text!r} is no month: expected one such as 2026-11")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    @property
    def days(self) -> list[datetime]:
        """The first moment of each."""
        first = datetime(self.year, self.month, 1, tzinfo=UTC)
        return [first + timedelta(days=day) for day in range(monthrange(self.year, self.month)[1])]

    @property
    def start(self) -> int:
        return int(self.days[0].timestamp())

    @property
    def end(self) -> int:
        """The first second after it."""
        return int((self.days[-1] + timedelta(days=1)).timestamp())

    def begun(self, now: float) -> bool:
        return now >= self.start

    def over(self, now: float) -> bool:
        """Whether all of its calls have ended; the records of some may still wait."""
        return now >= self.end + SETTLED_S

    def note(self, now: float) -> str:
        """Why what is read of it now may not be all; empty where it is."""
        until = f"{datetime.fromtimestamp(self.end + LATE_S, UTC):%Y-%m-%d}"
        if not self.over(now):
            return f"{self} is not over, and records that wait in the ledger queue may join it until {until}"
        if now < self.end + LATE_S:
            return f"records that wait in the ledger queue may join {self} until {until}: make this again then"
        return ""
