"""`POST /v1/embeddings` as a plain HTTP client sends it, to either door."""

import json
from typing import Any

import httpx
import numpy as np

from tests.doors.conftest import Server

MODEL = "all-minilm-l6-v2"
HEADER = "x-emblet-token-arrays"
PLAIN_KEYS = ["object", "data", "model", "usage"]


def post(server: Server, key: str, raw: bytes | None = None, /, **fields: Any) -> httpx.Response:
    content = json.dumps({"model": MODEL, "input": "the quick brown fox"} | fields).encode() if raw is None else raw
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/embeddings", content=content, headers=headers, timeout=60)


def vectors(answer: httpx.Response) -> list[bytes]:
    assert answer.status_code == 200, answer.text
    return [np.array(item["embedding"], np.float32).tobytes() for item in answer.json()["data"]]
