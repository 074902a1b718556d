"""Every error the service can answer, as data: status, type, code and message.

No other place composes an error body. `raise UNKNOWN_MODEL.error(param="model", id=...)` anywhere above the contract;
the door turns it into `{"error": {"message", "type", "param", "code"}}`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

# `sk-` and what follows it, each character as it is or percent-encoded, once or many times over. In either case: a
# client writes methods in capitals, a proxy the names of hosts in small letters, and most of a key is left then.
_CODED = "%(?:25)*"
_KEYS = re.compile(
    f"(?:s|{_CODED}[57]3)(?:k|{_CODED}[46]b)(?:-|{_CODED}2d)(?:[0-9a-z_-]|{_CODED}[2-7][0-9a-f]){{8,}}", re.IGNORECASE
)
_ECHO = 64  # values of the client's are cut at this many characters
_OURS = {"values"}  # not the client's: what is supported


@dataclass(frozen=True)
class Problem:
    """A row of the table. `message` has {fields} to be filled in; `headers` go out with it."""

    status: int
    type: str
    code: str | None
    message: str
    headers: tuple[tuple[str, str], ...] = ()

    def error(self, param: str | None = None, headers: dict[str, str] | None = None, **values: object) -> "ApiError":
        return ApiError(self, filled(self.message, values), param, dict(self.headers) | (headers or {}))


@dataclass(eq=False)  # not frozen: raising an exception sets attributes on it
class ApiError(Exception):
    """A failure as the client will see it."""

    problem: Problem
    message: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.problem.status} {self.problem.code or self.problem.type}"

    @property
    def status(self) -> int:
        return self.problem.status

    def body(self) -> bytes:
        shape = {"message": self.message, "type": self.problem.type, "param": self.param, "code": self.problem.code}
        return json.dumps({"error": shape}, ensure_ascii=False, separators=(",", ":")).encode()


def filled(message: str, values: Mapping[str, object]) -> str:
    """A message with its {fields} filled in; what is the client's is cut."""
    return message.format_map(
        {name: _cut(value) if isinstance(value, str) and name not in _OURS else value for name, value in values.items()}
    )


def _cut(text: str) -> str:
    text = without_keys(text)
    return text if len(text) <= _ECHO else text[:_ECHO] + "…"


def without_keys(text: str) -> str:
    """What a client sent, where it has put a key in the wrong place: for messages and logs."""
    return _KEYS.sub("sk-…", text)


_INVALID, _SERVER, _UNAVAILABLE = "invalid_request_error", "server_error", "service_unavailable_error"
_FINAL = (("x-should-retry", "false"),)  # repeating cannot help, and the SDKs obey it

INVALID_JSON = Problem(
    400,
    _INVALID,
    None,
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)",
)
MISSING_PARAMETER = Problem(400, _INVALID, "missing_required_parameter", "Missing required parameter: '{field}'.")
INVALID_TYPE = Problem(
    400, _INVALID, "invalid_type", "Invalid type for '{field}': expected {expected}, but got {got} instead."
)
INVALID_VALUE = Problem(400, _INVALID, "invalid_value", "Invalid value: '{value}'. Supported values are: {values}.")
DIMENSIONS = Problem(400, _INVALID, "invalid_value", "This model does not support specifying dimensions.")
EMPTY_ARRAY = Problem(
    400, _INVALID, "empty_array", "Invalid '{field}': empty array. Expected an array with minimum length 1."
)
TOO_MANY_INPUTS = Problem(
    400,
    _INVALID,
    "array_above_max_length",
    "Invalid 'input': array too long. Expected at most {most} inputs, but got {n}.",
)
EMPTY_STRING = Problem(400, _INVALID, "empty_string", "Invalid 'input[{i}]': empty string.")
TOKEN_ID = Problem(
    400, _INVALID, "invalid_token_id", "Invalid 'input[{i}]': token id {id} at position {p} is not in {vocabulary}."
)
TOKEN_ARRAYS = Problem(
    400,
    _INVALID,
    "token_arrays_not_supported",
    "This service takes text, not token ids. In LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False).",
)
CONTEXT_LENGTH = Problem(
    400,
    _INVALID,
    "context_length_exceeded",
    "This model's maximum context length is {context} tokens ({content} of text, {special} special tokens), however "
    'input[{i}] has {n} tokens of text. Shorten or split it, or send "truncate": true.',
)
MAX_TOKENS = Problem(
    400, "max_tokens_per_request", "max_tokens_per_request", "Requested {n} tokens, max {most} tokens per request"
)
RESPONSE_TOO_LARGE = Problem(
    400,
    _INVALID,
    "response_too_large",
    "The answer to {n} inputs would be about {bytes} bytes; {limit} can be returned. Send at most {k} inputs{hint}.",
)
REPORT_TOO_LARGE = Problem(
    400,
    _INVALID,
    "response_too_large",
    "The bucket that starts at {start} has more than {most} results. Group by less, or filter by project_ids or "
    "api_key_ids.",
)
NO_SUCH_OUTPUT = Problem(
    400, _INVALID, "unsupported_value", "Model '{model}' has no '{name}' output. It has: {outputs}."
)
NO_SUCH_DTYPE = Problem(
    400, _INVALID, "unsupported_value", "Model '{model}' gives no '{name}' numbers. It gives: {dtypes}."
)
IDEMPOTENCY_KEY = Problem(
    400, _INVALID, "invalid_idempotency_key", "Idempotency-Key must be 1 to 255 printable ASCII characters."
)
KEY_REUSED = Problem(400, _INVALID, "idempotency_key_reused", "This Idempotency-Key was used with a different request.")
FILE_FORMAT = Problem(400, _INVALID, None, "Invalid file format for Batch API. Must be .jsonl")
BROKEN_FORM = Problem(400, _INVALID, None, "We could not parse the multipart/form-data body of your request.")
NOT_CANCELLABLE = Problem(400, _INVALID, "batch_not_cancellable", "Cannot cancel a batch with status '{status}'.")
NO_KEY = Problem(
    401,
    _INVALID,
    None,
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if you're accessing the "
    "API from your browser and are prompted for a username and password.",
)
WRONG_KEY = Problem(401, _INVALID, "invalid_api_key", "Incorrect API key provided.")
WRONG_ROLE = Problem(
    403, _INVALID, "insufficient_permissions", "This key has the role '{role}'; {method} {path} needs '{needed}'."
)
UNKNOWN_MODEL = Problem(
    404, _INVALID, "model_not_found", "The model '{id}' does not exist or you do not have access to it."
)
UNKNOWN_URL = Problem(404, _INVALID, None, "Invalid URL ({method} {path})")
NO_FILE = Problem(404, _INVALID, None, "No such File object: {id}")
NOT_PUT = Problem(404, _INVALID, None, "The bytes of {id} have not been put yet: PUT them to its upload.url first.")
NO_BATCH = Problem(404, _INVALID, None, "No such Batch object: {id}")
WRONG_METHOD = Problem(
    405, _INVALID, None, "Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)"
)
BROKEN_HTTP = Problem(400, _INVALID, None, "The server could not read your request as HTTP/1.1.")
HEAD_TOO_LARGE = Problem(431, _INVALID, None, "The address and headers of your request are larger than are read here.")
BODY_TOO_LARGE = Problem(
    413, _INVALID, "request_too_large", "The request body is {n} bytes; at most {limit} are accepted."
)
FILE_TOO_LARGE = replace(
    BODY_TOO_LARGE,
    message=f"{BODY_TOO_LARGE.message} Of a larger file, POST filename, purpose and bytes as JSON, and PUT it to the "
    "upload.url of the answer.",
)
UNSUPPORTED_MEDIA = Problem(415, _INVALID, "unsupported_media_type", "Unsupported content type or encoding: {value}.")
QUOTA = Problem(
    429,
    "insufficient_quota",
    "insufficient_quota",
    "You exceeded your current quota, please check your plan and billing details. {limit} {unit} per month are used up "
    "until {until}.",
    _FINAL,
)
BEYOND_QUOTA = Problem(
    429,
    "insufficient_quota",
    "insufficient_quota",
    "You exceeded your current quota, please check your plan and billing details. Requested {requested} {unit}; the "
    "limit is {limit} per month, of which {used} are used until {until}.",
    _FINAL,
)
REQUESTS_PER_MINUTE = Problem(
    429,
    "requests",
    "rate_limit_exceeded",
    "Rate limit reached for {model} on requests per min (RPM): Limit {limit}, Used {used}, Requested {requested}. "
    "Please try again in {duration}.",
)
TOKENS_PER_MINUTE = Problem(
    429,
    "tokens",
    "rate_limit_exceeded",
    "Rate limit reached for {model} on tokens per min (TPM): Limit {limit}, Used {used}, Requested {requested}. "
    "Please try again in {duration}.",
)
TOO_MANY_TOKENS_FOR_A_MINUTE = Problem(
    429,
    "tokens",
    "rate_limit_exceeded",
    "Request too large for {model} on tokens per min (TPM): Limit {limit}, Requested {requested}. Send fewer or "
    "shorter inputs.",
    _FINAL,
)
NON_FINITE = Problem(500, _SERVER, "non_finite_vector", "The model produced no finite vector for input[{i}].", _FINAL)
UNFORESEEN = Problem(500, _SERVER, None, "The server had an error while processing your request. (request id {id})")
LOADING = Problem(503, _UNAVAILABLE, "model_loading", "The model is loading. Please try again in {s} seconds.")
OVERLOADED = Problem(
    503, _UNAVAILABLE, "server_is_overloaded", "The engine is currently overloaded, please try again later."
)
STORE_UNAVAILABLE = Problem(
    503,
    _UNAVAILABLE,
    "store_unavailable",
    "A store that this service needs cannot be reached. Please try again in {s} seconds.",
)
DEADLINE = Problem(
    504,
    _SERVER,
    "deadline_exceeded",
    "{n} tokens could not be embedded within {s} seconds. Send fewer inputs or use a batch.",
    _FINAL,
)


def table() -> tuple[Problem, ...]:
    """Every row, in the order above."""
    return tuple(value for value in globals().values() if isinstance(value, Problem))


def try_again(problem: Problem, seconds: int) -> ApiError:
    """A 503 with both of the headers that SDKs read; `seconds` 1 to 10."""
    return problem.error(headers={"retry-after": str(seconds), "retry-after-ms": str(seconds * 1000)}, s=seconds)


@contextmanager
def carrying(headers: Mapping[str, str]) -> Iterator[None]:
    """Every ApiError that leaves the block has these headers too."""
    try:
        yield
    except ApiError as error:
        error.headers.update(headers)
        raise
