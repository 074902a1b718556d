"""Both doors as their callers see them: the function behind its URL, and the plain HTTP server."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

MODEL = "all-minilm-l6-v2"
DOORS = {"function": "function_url", "plain": "plain"}


@dataclass(frozen=True)
class Door:
    """A caller with a key at one of the doors; `headers={"authorization": ""}` is one without."""

    url: str
    client: httpx.Client

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """The path goes out as it is written here; no redirect is followed."""
        return self.client.request(method, self.url + path, **more)

    def embed(
        self, path: str = "/v1/embeddings", *, headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        return self.ask("POST", path, json={"model": MODEL, "input": "the quick brown fox"} | body, headers=headers)


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, inference_key: str) -> Iterator[Door]:
    """Both doors, one after the other."""
    url: str = request.getfixturevalue(DOORS[request.param]).url
    with httpx.Client(headers={"authorization": f"Bearer {inference_key}"}, timeout=60) as client:
        yield Door(url, client)


def envelope(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer that must be one."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"].startswith("req_")
    error: dict[str, Any] = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error
