"""Both doors, for tests that ask each."""

from typing import Protocol

import pytest

from tests.conftest import ENTRY
from tests.conftest import HOUSE as ROOT

__all__ = ["ENTRY", "ROOT"]


class Server(Protocol):
    url: str


@pytest.fixture(params=["function", "plain"])
def server(request: pytest.FixtureRequest) -> Server:
    """Both doors, one after the other."""
    door: Server = request.getfixturevalue("function_url" if request.param == "function" else "plain")
    return door
