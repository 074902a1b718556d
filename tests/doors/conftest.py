"""A place for what the tests of a door measure."""

from collections.abc import Callable

import pytest

from tests.conftest import ENTRY
from tests.conftest import HOUSE as ROOT

__all__ = ["ENTRY", "ROOT"]

_measured = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Shows a line at the end of the run, whether tests pass or fail."""
    return pytestconfig.stash.setdefault(_measured, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_measured, None):
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)
