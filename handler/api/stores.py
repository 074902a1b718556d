"""Work on stores for a route: on a thread of its own, and a 503 where one is out of reach."""

from collections.abc import Callable
from typing import TypeVar

from fastapi import Request

from handler.api.threads import Threads
from handler.reach import within_reach

T = TypeVar("T")


async def reached(request: Request, call: Callable[[], T]) -> T:
    """What the call gives. Raises 503, or what the call raises."""
    threads: Threads = request.app.state.keepers
    with within_reach("Jobs table or results bucket"):
        return await threads.run(call)
