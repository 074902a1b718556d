"""Work on stores for a route: on a thread of its own, and a 503 where one is out of reach."""

import logging
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request

from handler import store
from handler.api.threads import Threads
from handler.contract import errors
from handler.service import RETRY_S

log = logging.getLogger(__name__)

T = TypeVar("T")


async def reached(request: Request, call: Callable[[], T]) -> T:
    """What the call gives. Raises 503, or what the call raises."""
    try:
        threads: Threads = request.app.state.tellers
        return await threads.run(call)
    except store.StoreUnavailableError as error:
        log.error("Jobs table or results bucket out of reach, request refused: %s", error)
        raise errors.try_again(errors.STORE_UNAVAILABLE, RETRY_S) from error
