"""By when a door of SQS begins nothing more."""

import time
from typing import Any

_SPARE_S, _SPARE = 20.0, 0.2  # of the function's time, or of a short one a part, for what must be written at the end


def of(context: Any) -> float | None:
    """A moment of time.monotonic() for a call with Lambda's context; None for a call without one, which has no end."""
    if context is None:
        return None
    left = float(context.get_remaining_time_in_millis()) / 1000
    return time.monotonic() + left - min(_SPARE_S, left * _SPARE)
