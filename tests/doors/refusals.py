"""Section 3 of the contract as data: every error that there is, to the letter, and a request that provokes it.

Those of a body's fields are in test_inputs.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from handler.contract.limits import Limits
from tests.doors.embedding import MODEL

BOTH = ("function", "plain")

# What the settings, or a misfortune, have made of a service; see test_errors.py.
ORDINARY, STRICT, DAMAGED, STRANDED = "ordinary", "strict", "damaged", "stranded"
BODY_LIMIT = 2000  # bytes, of STRICT
ROTTEN = "rotten"  # a word that makes NaN of what DAMAGED embeds

IRE = "invalid_request_error"
FINAL = {"x-should-retry": "false"}
SOON = {"retry-after": "[1-9]|10", "retry-after-ms": "[1-9]000|10000"}
NEXT_MINUTE = {"retry-after": "[1-9]|[1-5][0-9]|60", "retry-after-ms": "[0-9]{1,5}"}


@dataclass(frozen=True)
class Refusal:
    """`message` has <parts> that are not known before; `told`: patterns of the headers that say what to do next.
    `used`: the key's minutes, this one and the next, have had a request each already."""

    status: int
    type: str
    code: str | None
    param: str | None
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes | None = None
    method: str = "POST"
    path: str = "/v1/embeddings"
    headers: Mapping[str, str] = field(default_factory=dict)
    key: str | None = "inference"
    limits: Limits | None = None
    used: bool = False
    told: Mapping[str, str] = field(default_factory=dict)
    service: str = ORDINARY
    doors: tuple[str, ...] = BOTH

    def __str__(self) -> str:
        return f"{self.status} {self.code} {self.message[:24]}"


REFUSALS = [
    Refusal(
        *(400, IRE, None, None),
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
        "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
        raw=b"{'model': 1}",
    ),
    Refusal(
        *(400, IRE, "invalid_idempotency_key", "Idempotency-Key"),
        "Idempotency-Key must be 1 to 255 printable ASCII characters.",
        headers={"Idempotency-Key": "k" * 256},
    ),
    Refusal(
        *(400, IRE, "empty_string", "input[1]"),
        "Invalid 'input[1]': empty string.",
        fields={"input": ["a", ""]},
        service=STRICT,
    ),
    Refusal(
        *(400, IRE, "token_arrays_not_supported", "input"),
        "This service takes text, not token ids. In LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False).",
        fields={"input": [1, 2]},
        service=STRICT,
    ),
    Refusal(
        *(400, IRE, "context_length_exceeded", "input[0]"),
        "This model's maximum context length is 256 tokens (254 of text, 2 special tokens), however input[0] has 255 "
        'tokens of text. Shorten or split it, or send "truncate": true.',
        fields={"input": "word " * 255},
    ),
    Refusal(
        *(400, "max_tokens_per_request", "max_tokens_per_request", "input"),
        "Requested 300250 tokens, max 300000 tokens per request",
        fields={"input": ["word " * 250] * 1201},
    ),
    Refusal(
        *(400, IRE, "response_too_large", "input"),
        "The answer to 954 inputs would be about 6285906 bytes; 6283264 can be returned. Send at most 953 inputs, or "
        '"encoding_format": "base64".',
        fields={"input": ["a"] * 954},
        doors=("function",),
    ),
    Refusal(
        *(401, IRE, None, None),
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
        "(i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're accessing "
        "the API from your browser and are prompted for a username and password.",
        key=None,
    ),
    Refusal(*(401, IRE, "invalid_api_key", None), "Incorrect API key provided.", key="unknown"),
    Refusal(
        *(403, IRE, "insufficient_permissions", None),
        "This key has the role 'admin'; POST /v1/embeddings needs 'inference'.",
        key="admin",
    ),
    Refusal(
        *(404, IRE, "model_not_found", "model"),
        f"The model '{'x' * 64}…' does not exist or you do not have access to it.",
        fields={"model": "x" * 65},
    ),
    Refusal(*(404, IRE, None, None), "Invalid URL (POST /v1/chat)", path="/v1/chat"),
    Refusal(
        *(405, IRE, None, None),
        "Not allowed to PUT on /v1/embeddings. (HINT: Perhaps you meant to use a different HTTP method?)",
        method="PUT",
        told={"allow": "POST, OPTIONS"},
    ),
    Refusal(
        *(413, IRE, "request_too_large", None),
        f"The request body is {BODY_LIMIT + 1} bytes; at most {BODY_LIMIT} are accepted.",
        raw=b" " * (BODY_LIMIT + 1),
        service=STRICT,
    ),
    Refusal(
        *(415, IRE, "unsupported_media_type", None),
        "Unsupported content type or encoding: multipart/form-data.",
        headers={"content-type": "multipart/form-data; boundary=x"},
    ),
    Refusal(
        *(415, IRE, "unsupported_media_type", None),
        "Unsupported content type or encoding: br.",
        headers={"content-encoding": "br"},
    ),
    Refusal(
        *(429, "insufficient_quota", "insufficient_quota", None),
        "You exceeded your current quota, please check your plan and billing details. 8 tokens per month are used up "
        "until <month>.",
        limits=Limits(tokens_per_month=8),
        used=True,
        told=FINAL,
    ),
    Refusal(
        *(429, "insufficient_quota", "insufficient_quota", None),
        "You exceeded your current quota, please check your plan and billing details. Requested 4 tokens; the limit "
        "is 3 per month, of which 0 are used until <month>.",
        limits=Limits(tokens_per_month=3),
        told=FINAL,
    ),
    Refusal(
        *(429, "requests", "rate_limit_exceeded", None),
        f"Rate limit reached for {MODEL} on requests per min (RPM): Limit 1, Used 1, Requested 1. Please try again in "
        "<duration>.",
        limits=Limits(requests_per_minute=1),
        used=True,
        told=NEXT_MINUTE,
    ),
    Refusal(
        *(429, "tokens", "rate_limit_exceeded", None),
        f"Rate limit reached for {MODEL} on tokens per min (TPM): Limit 5, Used 4, Requested 4. Please try again in "
        "<duration>.",
        limits=Limits(tokens_per_minute=5),
        used=True,
        told=NEXT_MINUTE,
    ),
    Refusal(
        *(429, "tokens", "rate_limit_exceeded", None),
        f"Request too large for {MODEL} on tokens per min (TPM): Limit 3, Requested 4. Send fewer or shorter inputs.",
        limits=Limits(tokens_per_minute=3),
        told=FINAL,
    ),
    Refusal(
        *(500, "server_error", "non_finite_vector", "input[1]"),
        "The model produced no finite vector for input[1].",
        fields={"input": ["sound", ROTTEN]},
        told=FINAL,
        service=DAMAGED,
    ),
    Refusal(
        *(500, "server_error", None, None),
        "The server had an error while processing your request. (request id <id>)",
        fields={"input": [1, 2]},
        service=DAMAGED,
    ),
    Refusal(
        *(503, "service_unavailable_error", "store_unavailable", None),
        "A store that this service needs cannot be reached. Please try again in <seconds> seconds.",
        told=SOON,
        service=STRANDED,
    ),
]
