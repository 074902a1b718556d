"""Requests of clients that cannot be run here, because they are applications or need another runtime: what they send,
without their code. Where a client forwards fields of its user's choice, one stands for them all."""

from dataclasses import dataclass, field
from typing import Any

_TWO = ["the quick brown fox", "数字"]
_BASE64 = {"encoding_format": "base64"}
_FLOAT = {"encoding_format": "float"}


@dataclass(frozen=True)
class Replay:
    """`path` and `headers` are the client's; `{key}` stands for a key. `body` lacks the model."""

    client: str
    what: str
    body: dict[str, Any]
    path: str = "/v1/embeddings"
    headers: dict[str, str] = field(default_factory=lambda: {"authorization": "Bearer {key}"})

    @property
    def texts(self) -> list[str]:
        given: str | list[str] = self.body["input"]
        return [given] if isinstance(given, str) else given


_API_KEY = {"authorization": "Bearer {key}", "api-key": "{key}"}

REPLAYS = [
    Replay("AnythingLLM", "500 texts, base64", {"input": [f"part {i % 20}" for i in range(500)], **_BASE64}),
    Replay("Microsoft .NET, Microsoft.Extensions.AI", "base64", {"input": _TWO, **_BASE64}),
    Replay("n8n", "empty text, base64", {"input": ["a", ""], **_BASE64}),
    Replay("Flowise", "empty text, base64", {"input": ["a", ""], **_BASE64}),
    Replay("Dify", "its check", {"input": "ping"}),
    Replay("Dify", "float", {"input": _TWO, **_FLOAT}),
    Replay("Dify", "null format", {"input": _TWO, "encoding_format": None}),
    Replay("Open WebUI", "prefix field", {"input": _TWO, "prefix": "query: "}),
    Replay("Open WebUI", "`//embeddings`", {"input": _TWO}, path="/v1//embeddings"),
    Replay("Continue", "extra fields", {"input": _TWO, "max_chunk_size": 512}),
    Replay("Continue", "`bearer` and `api-key`", {"input": _TWO}, headers=_API_KEY | {"authorization": "bearer {key}"}),
    Replay("Continue", "`x-api-key`", {"input": _TWO}, headers={"x-api-key": "{key}"}),
    Replay(
        "LiteLLM 1.80.11 to 1.83", "null format, extra fields", {"input": _TWO, "encoding_format": None, "timeout": 600}
    ),
    Replay("mem0, older versions", "`dimensions`", {"input": ["a"], "dimensions": 384, **_FLOAT}),
]
