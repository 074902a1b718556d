"""The function as Lambda runs it, behind its URL, for every test of a door; and a place for what they measure."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.stack.frontdoor import FrontDoor

ROOT = Path(__file__).parents[2]
ENTRY = ["/bin/sh", "handler/entry.sh"]  # the image's own entry point


class Server(Protocol):
    url: str


_measured = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def function_url(service_env: Mapping[str, str]) -> Iterator[FrontDoor]:
    """The function's URL, with a reserved concurrency of 2."""
    with FrontDoor(ENTRY, service_env, cwd=ROOT, size=2) as door:
        yield door


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
