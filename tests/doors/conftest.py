"""A place for what the tests of a door measure."""

from collections.abc import Callable
from typing import Protocol

import pytest

from tests.conftest import ENTRY
from tests.conftest import HOUSE as ROOT

__all__ = ["ENTRY", "ROOT"]


class Server(Protocol):
    url: str


_measured = pytest.StashKey[list[str]]()


@pytest.fixture(params=["function", "plain"])
def server(request: pytest.FixtureRequest) -> Server:
    """Both doors, one after the other."""
    door: Server = request.getfixturevalue("function_url" if request.param == "function" else "plain")
    return door


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Shows a line at the end of the run, whether tests pass or fail."""
    return pytestconfig.stash.setdefault(_measured, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_measured, None):
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)
