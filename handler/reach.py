"""Stores that are out of reach: a 503 that says so."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from handler import store
from handler.contract import errors

log = logging.getLogger(__name__)

RETRY_S = 2  # what a client is told while the model loads or a store is out of reach


@contextmanager
def within_reach(place: str) -> Iterator[None]:
    """A table or bucket out of reach, without which nothing may be done, is a 503 that says so."""
    try:
        yield
    except store.StoreUnavailableError as error:
        log.error("%s out of reach, request refused: %s", place, error)
        raise errors.try_again(errors.STORE_UNAVAILABLE, RETRY_S) from error
