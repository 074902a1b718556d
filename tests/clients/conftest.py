"""Both doors for every client, no other network, the vectors they are held against, and the table of what was found."""

import base64
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from handler.engine import manifest
from model_layer import cl100k
from tests.clients.catalog import CLIENTS
from tests.stack.server import PlainServer

MODEL = "all-minilm-l6-v2"
DOORS = {"function_url": "function URL", "plain": "plain HTTP"}

# Nothing is looked up outside, nothing reported: whatever tries meets a port that refuses.
OFFLINE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MEM0_TELEMETRY": "False",
}


class Served(Protocol):
    url: str


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Served:
    """The service behind a function URL, then as a plain HTTP server."""
    record_property("door", request.param)
    served: Served = request.getfixturevalue(request.param)
    return served


@pytest.fixture(scope="session")
def offline(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without a network, with cl100k's vocabulary where tiktoken looks for it."""
    home = tmp_path_factory.mktemp("clients")
    [name] = cl100k.WHEEL.files
    (home / name).symlink_to(minilm / manifest.CL100K)
    return OFFLINE | {"PATH": os.environ["PATH"], "HOME": str(home), "TIKTOKEN_CACHE_DIR": str(home)}


@dataclass(frozen=True)
class Reference:
    """What the service gives for one text alone: the bytes of its float32 vector, and its tokens."""

    vector: bytes
    tokens: int


@pytest.fixture(scope="session")
def reference(plain: PlainServer, inference_key: str) -> Iterator[Callable[[str], Reference]]:
    """The reference of a text, asked without any library, one request a text."""
    with httpx.Client(base_url=plain.url, headers={"authorization": f"Bearer {inference_key}"}) as http:

        @cache
        def ask(text: str) -> Reference:
            answer = post(http, {"model": MODEL, "input": text, "encoding_format": "base64"}).json()
            [item] = answer["data"]
            return Reference(base64.b64decode(item["embedding"]), answer["usage"]["prompt_tokens"])

        yield ask


def post(http: httpx.Client, body: Any) -> httpx.Response:
    answer = http.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of what CLIENTS does not name are left out, and not told one by one as skipped."""
    here = Path(__file__).parent

    def is_asked(item: pytest.Item) -> bool:
        left_out = [*item.iter_markers("skip"), *(mark for mark in item.iter_markers("skipif") if mark.args[0])]
        return here not in item.path.parents or not left_out

    items[:] = filter(is_asked, items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A row a client: what was checked, and how it went through each door. Markdown, for README.md."""
    reports = [
        (report, outcome == "passed")
        for outcome in ("passed", "failed", "error")
        for report in terminalreporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport)  # and not of a file that could not be collected
    ]
    rows: dict[str, Row] = {}
    for report, passed in sorted(reports, key=lambda each: each[0].start):
        told: dict[str, Any] = dict(report.user_properties)
        if "client" in told:
            rows.setdefault(told["client"], Row()).add(told, passed)
    if not rows:
        return
    terminalreporter.section("clients")
    terminalreporter.line(f"| client | library | checked | {' | '.join(DOORS.values())} |")
    terminalreporter.line("|---" * (3 + len(DOORS)) + "|")
    order = [client.title for client in CLIENTS.values()]
    for client in sorted(rows, key=lambda title: order.index(title) if title in order else len(order)):
        terminalreporter.line(rows[client].line(client))


@dataclass
class Row:
    """What is known of a client: `checks[door][check]` says whether it has passed."""

    library: str = "?"
    checks: dict[str, dict[str, bool]] = field(default_factory=lambda: {door: {} for door in DOORS})

    def add(self, told: dict[str, Any], passed: bool) -> None:
        self.library = told.get("library", self.library)
        checks = self.checks[told["door"]]
        checks[told["check"]] = checks.get(told["check"], True) and passed

    def line(self, client: str) -> str:
        checked = ", ".join(dict.fromkeys(check for checks in self.checks.values() for check in checks))
        return f"| {client} | {self.library} | {checked} | {' | '.join(map(_result, self.checks.values()))} |"


def _result(checks: dict[str, bool]) -> str:
    failed = [check for check, passed in checks.items() if not passed]
    return f"FAILED: {', '.join(failed)}" if failed else "passed" if checks else "not asked"
