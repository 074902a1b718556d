"""What tells one piece of work from another: when it came in, what its caller calls it, which attempt it is."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Identity:
    """A caller's own name for a piece of work, by which its repetition is known for `lifetime` seconds.

    `kind`: whose names these are, such as "http" for Idempotency-Key. `id` and `asked`: SHA-256 in hex, of the name and
    of what is asked for under it: the caller's own words get into no table, queue or log.
    """

    kind: str
    id: str
    asked: str
    lifetime: int


@dataclass(frozen=True)
class Attempt:
    """Which attempt at a call a request is: `count` 0 is the first. `patience_s`: seconds after which its client may
    have begun the next one already; None for a client that is not known to repeat by itself."""

    count: int = 0
    patience_s: float | None = None


@dataclass(frozen=True)
class Work:
    """A piece of work. `id` is its own; `hash`: SHA-256 in hex, at least 16 digits, of an HTTP request's body or of a
    later door's identity; `time`: when it came in, of a shard when it was begun. It has an identity, or is an attempt,
    or neither; never both."""

    id: str
    hash: str
    time: datetime
    door: str
    identity: Identity | None = None
    attempt: Attempt | None = None
