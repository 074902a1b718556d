"""What every answer must be, whatever was asked."""

import base64
import json
import math
import re
from typing import Any

import numpy as np

from tests.fuzz.bodies import CANARY, MODEL
from tests.fuzz.case import Case
from tests.fuzz.doors import Reply
from tests.fuzz.oracle import CONTENT, DIMENSIONS, Verdict, inputs, words

_REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")

# Section 3: the statuses, types and codes that there are, but for those that a well service never has.
_INVALID = "invalid_request_error"
_ERRORS = {
    *((400, _INVALID, code) for code in (None, "missing_required_parameter", "invalid_type", "invalid_value")),
    *((400, _INVALID, code) for code in ("empty_array", "array_above_max_length", "invalid_token_id")),
    *((400, _INVALID, code) for code in ("context_length_exceeded", "unsupported_value", "invalid_idempotency_key")),
    (400, "max_tokens_per_request", "max_tokens_per_request"),
    (401, _INVALID, None),
    (401, _INVALID, "invalid_api_key"),
    (403, _INVALID, "insufficient_permissions"),
    (404, _INVALID, None),
    (404, _INVALID, "model_not_found"),
    (405, _INVALID, None),
    (413, _INVALID, "request_too_large"),
    (415, _INVALID, "unsupported_media_type"),
    (431, _INVALID, None),
}


def inspect(case: Case, reply: Reply, verdict: Verdict) -> int | None:
    """Assert that the reply is the verdict's, and right in itself. The tokens that were billed, None for none."""
    assert reply.status == verdict.status, reply
    assert _REQUEST_ID.fullmatch(reply.headers["x-request-id"])
    offered = case.header("accept-encoding") or ""
    assert "content-encoding" not in reply.headers or "gzip" in offered or "*" in offered
    if case.method == "HEAD" or reply.status == 204:
        assert reply.body == b""
        return None
    if reply.status >= 400:
        _refusal(reply, verdict)
        return None
    if case.method != "POST":
        return None
    assert case.body.values is not None
    tokens = _embeddings(dict(case.body.values), reply, verdict, timed=case.header("x-emblet-timing") == "true")
    return None if reply.headers.get("x-emblet-replay") == "true" else tokens  # it was billed before


def envelope(reply: Reply) -> dict[str, Any]:
    """The error of an answer that is one, as section 3 has it."""
    assert reply.headers["content-type"] == "application/json"
    answer = json.loads(reply.body)
    assert list(answer) == ["error"]
    error: dict[str, Any] = answer["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (reply.status, error["type"], error["code"]) in _ERRORS
    assert isinstance(error["message"], str)
    assert error["message"]
    return error


def _refusal(reply: Reply, verdict: Verdict) -> None:
    error = envelope(reply)
    assert (error["code"], error["param"]) == (verdict.code, verdict.param)
    # Names and values of a choice are echoed, inputs never.
    assert CANARY not in error["message"] or error["code"] in ("model_not_found", "invalid_value")
    assert ("allow" in reply.headers) == (reply.status == 405)


def _embeddings(values: dict[str, Any], reply: Reply, verdict: Verdict, *, timed: bool) -> int:
    assert reply.headers["content-type"] == "application/json"
    assert ("server-timing" in reply.headers) == timed
    assert CANARY.encode() not in reply.body
    answer, asked = json.loads(reply.body), inputs(values["input"])
    ids = not isinstance(asked[0], str)
    assert reply.headers.get("x-emblet-token-arrays") == ("cl100k" if ids else None)
    shortened = "truncated" if values.get("truncate") or not ids else "averaged"
    assert set(answer) - {"object", "data", "model", "usage"} <= {shortened}
    long = [index for index, item in enumerate(asked) if isinstance(item, str) and (words(item) or 0) > CONTENT]
    assert ids or answer.get("truncated", []) == long
    assert (answer["object"], answer["model"]) == ("list", MODEL)
    assert [item["index"] for item in answer["data"]] == [*range(len(asked))]
    for item in answer["data"]:
        assert list(item) == ["object", "index", "embedding"]
        assert item["object"] == "embedding"
        vector = _vector(item["embedding"], values.get("encoding_format") or "float")
        assert vector.shape == (DIMENSIONS,)
        assert math.isclose(float(vector @ vector), 1, rel_tol=1e-5)  # and so is every number of it finite
    used = answer["usage"]
    tokens: int = used["prompt_tokens"]
    assert used == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert verdict.tokens in (None, tokens)
    assert tokens >= 0
    assert ids or tokens <= CONTENT * len(asked)
    return tokens


def _vector(embedding: Any, encoding_format: str) -> Any:
    if encoding_format == "base64":
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    assert isinstance(embedding, list)
    return np.array(embedding, np.float64)
