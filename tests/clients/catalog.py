"""The clients that are asked: which program, in which environment, and how each shows what it got."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.stack import node

HOUSE = Path(__file__).parents[2]

OPENAI_ERRORS = {
    "wrong key": "AuthenticationError",
    "unknown model": "NotFoundError",
    "too long": "BadRequestError",
    "empty array": "BadRequestError",
}


@dataclass(frozen=True)
class Client:
    """A library as its users call it, by a program of this folder, or of tests/node where `program` ends in .mjs.

    `environment` is a folder of .venv-clients, None the tests' own. `requests` is how many the library makes of the
    calls in test_libraries.py that succeed. `chunk` is what it is told to put into a request, in the call where it is
    told. `errors` are the classes that its users catch; where one is missing, the library makes no request of that
    call, or makes it one that succeeds.
    """

    title: str
    program: str
    environment: str | None = None
    arguments: tuple[str, ...] = ()
    requests: int = 3
    chunk: int | None = None
    tells_usage: bool = False
    tells_model: bool = False
    sends_ids: bool = False
    errors: Mapping[str, str] = field(default_factory=lambda: OPENAI_ERRORS)
    ordinary: bool = False  # asked by every test run, not only by `make test-clients`

    @property
    def command(self) -> list[str]:
        if self.program.endswith(".mjs"):
            return [node.node(), str(node.FOLDER / self.program), *self.arguments]
        python = sys.executable
        if self.environment:
            python = str(HOUSE / ".venv-clients" / self.environment / "bin/python")
        return [python, "-m", f"tests.clients.{self.program}", *self.arguments]

    def ask(
        self, url: str, key: str, model: str, calls: Mapping[str, Mapping[str, Any]], env: Mapping[str, str]
    ) -> dict[str, Any]:
        """What the program tells of these calls (program.py), in their order, to the service at `url`. A call is its
        texts, and what of it is not as usual."""
        assert Path(self.command[0]).exists(), f"{self.command[0]} is missing: `make test-clients` makes it"
        usual = {"key": key, "model": model, "alone": False, "chunk": None}
        job = {"base_url": f"{url}/v1", "calls": [{**usual, **call} for call in calls.values()]}
        done = subprocess.run(
            self.command, cwd=HOUSE, env=env, input=json.dumps(job), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told


def _without(*cases: str, **errors: str) -> dict[str, str]:
    """OpenAI's classes without these cases', and with other classes for others."""
    own = {case.replace("_", " "): name for case, name in errors.items()}
    return {case: name for case, name in (OPENAI_ERRORS | own).items() if case not in cases}


def _openai_python(version: int, environment: str | None) -> Client:
    title = f"openai-python {version}.x"
    return Client(title, "openai_python", environment, tells_usage=True, tells_model=True, ordinary=True)


def _openai_node(version: int, package: str, *, ordinary: bool) -> Client:
    title = f"openai-node {version}.x"
    return Client(title, "openai.mjs", arguments=(package,), tells_usage=True, tells_model=True, ordinary=ordinary)


CLIENTS = {
    "openai-1": _openai_python(1, "openai-1"),
    "openai-2": _openai_python(2, "openai-2"),
    "openai-3": _openai_python(3, None),
    "openai-node-6": _openai_node(6, "openai", ordinary=True),
    "openai-node-7": _openai_node(7, "openai-7", ordinary=False),
    "langchain": Client(
        "LangChain, its defaults (token ids)",
        "langchain",
        "langchain",
        requests=8,
        chunk=25,
        sends_ids=True,
        errors=_without("too long", "empty array"),
        ordinary=True,
    ),
    "langchain-text": Client(
        "LangChain, `check_embedding_ctx_length=False`",
        "langchain",
        "langchain",
        ("text",),
        requests=6,
        chunk=25,
        errors=_without("empty array"),
    ),
    "langchain-js": Client(
        "LangChain.js",
        "langchain.mjs",
        requests=6,
        chunk=25,
        errors=_without("empty array", too_long="ContextOverflowError"),
    ),
    "llama-index": Client(
        "LlamaIndex", "llama_index", "llama-index", requests=6, chunk=25, errors=_without("empty array")
    ),
    "litellm": Client(
        "LiteLLM",
        "litellm",
        "litellm",
        tells_usage=True,
        tells_model=True,
        errors=_without(too_long="ContextWindowExceededError"),
    ),
    "haystack": Client(
        "Haystack",
        "haystack",
        "haystack",
        requests=7,
        chunk=25,
        tells_usage=True,
        tells_model=True,
        errors=_without("empty array"),
    ),
    "ai-sdk": Client(
        "Vercel AI SDK, `@ai-sdk/openai-compatible`",
        "ai_sdk.mjs",
        tells_usage=True,
        errors=dict.fromkeys(("wrong key", "unknown model", "too long"), "AI_APICallError"),
        ordinary=True,
    ),
    "mem0": Client("mem0, told the dimensions", "mem0", "mem0", errors=_without("empty array")),
}


CURL, REPLAYS = "curl", "replays"  # asked without a library


def named() -> list[str]:
    """What CLIENTS names: all of them for `all`, and without it those that every test run asks.

    Raises ValueError for a name that is not there.
    """
    wanted = os.environ.get("CLIENTS", "").replace(",", " ").split()
    if unknown := set(wanted) - {*CLIENTS, CURL, REPLAYS, "all"}:
        there = ", ".join((*CLIENTS, CURL, REPLAYS))
        raise ValueError(f"CLIENTS: there is no {', '.join(sorted(unknown))}; there are all, {there}")
    if "all" in wanted:
        return [*CLIENTS, CURL, REPLAYS]
    return wanted or [*(name for name, client in CLIENTS.items() if client.ordinary), CURL, REPLAYS]


def asked() -> dict[str, Client]:
    """The libraries among them."""
    return {name: CLIENTS[name] for name in named() if name in CLIENTS}


def unless_named(name: str) -> pytest.MarkDecorator:
    """Leave a test out where CLIENTS names others."""
    return pytest.mark.skipif(name not in named(), reason=f"CLIENTS does not name {name}")


def _environments() -> str:
    """The environments that these clients need, as targets of the Makefile."""
    needed = {each.environment for each in asked().values() if each.environment}
    return " ".join(f".venv-clients/{name}/ready" for name in sorted(needed))


if __name__ == "__main__":
    try:
        print(_environments())
    except ValueError as error:
        sys.exit(str(error))
