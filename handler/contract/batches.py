"""Batches on the wire: what may be asked for, the object that stands for one, and why a whole file or a line fails."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from handler.contract import errors, fields, files

ENDPOINT, WINDOW, WINDOW_S = "/v1/embeddings", "24h", 86400
MOST, DEFAULT = 100, 20  # batches of a page
MOST_FAULTS = 100

PAIRS, NAME, VALUE = 16, 64, 512  # of metadata: how many at most, and characters of each
FINAL = ("failed", "completed", "expired", "cancelled")
STATES = ("validating", "in_progress", "finalizing", "cancelling", *FINAL)
TIMES = ("in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at")


@dataclass(frozen=True)
class Asked:
    """A batch as it is asked for; `output_lasts_s`: how long its files are kept."""

    input_file_id: str
    metadata: dict[str, str] | None
    output_lasts_s: int


@dataclass(frozen=True)
class Fault:
    """Why a file cannot be done at all, or by `line` which line of it; `param` names the field."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    def at(self, line: int, param: str | None = None, **values: object) -> "Fault":
        """That of a line. `values` fill in the message."""
        return replace(self, line=line, param=param, message=errors.filled(self.message, values | {"param": param}))

    def wire(self) -> dict[str, Any]:
        return {"code": self.code, "line": self.line, "message": self.message, "param": self.param}


NOT_JSON = Fault("invalid_json_line", "This line is not parseable as valid JSON.")
NOT_AN_OBJECT = Fault("invalid_json_line", "This line must be a JSON object, but it is {got}.")
TOO_LONG = Fault(
    "invalid_json_line",
    "This line has more than {most} bytes (BATCH_MAX_LINE_BYTES), and neither begins nor ends with its custom_id.",
)
MISSING = Fault("missing_required_parameter", "Missing required parameter: '{param}'.")
WRONG_TYPE = Fault(MISSING.code, "Invalid type for '{param}': expected {expected}, but got {got} instead.")
DUPLICATE = Fault("duplicate_custom_id", "Line {first} has the same custom_id.")
WRONG_METHOD = Fault("url_mismatch", "Each line must have the method 'POST', and this one has '{given}'.")
WRONG_URL = Fault(WRONG_METHOD.code, f"Each line must have the url '{ENDPOINT}', and this one has '{{given}}'.")
NOT_SERVED = Fault("model_mismatch", "The model '{id}' is not served here. Supported values are: {values}.")
OTHER_MODEL = Fault(
    NOT_SERVED.code, "This line asks for the model '{id}', the lines before for '{model}': a batch has one model."
)
EMPTY = Fault("empty_file", "The file has no lines.")
TOO_MANY = Fault("too_many_tasks", "The file has more than {most} {what}, which is the most that a batch may have.")
GONE = Fault("file_not_found", "The file is not there any more.")
LOST = Fault(
    GONE.code,
    "{n} lines have failed without an error of their own: their file, or what had come of them, is not there any "
    "more, or another is.",
)
FAULTS = (
    NOT_JSON,
    NOT_AN_OBJECT,
    TOO_LONG,
    MISSING,
    WRONG_TYPE,
    DUPLICATE,
    WRONG_METHOD,
    WRONG_URL,
    NOT_SERVED,
    OTHER_MODEL,
    EMPTY,
    TOO_MANY,
    GONE,
    LOST,
)


@dataclass(frozen=True)
class Unreached:
    """Why a line was not executed."""

    code: str
    message: str


EXPIRED = Unreached("batch_expired", "This request could not be executed before the completion window expired.")
CANCELLED = Unreached("batch_cancelled", "This request could not be executed before the batch was cancelled.")


@dataclass(frozen=True)
class Batch:
    """A batch of an account. `input_key`: where its file lies; `key_id` and `key_hash`: the key that has asked for it,
    if one has; `shards`: into how many it is cut, None before, `at_once`: how many of them are out at most, `done`: how
    many are done; `ends`: `expired` once its time is up; `output_key` and `error_key`: where its files are to be."""

    id: str
    account: str
    input_file_id: str
    input_key: str
    created_at: int
    expires_at: int
    output_lasts_s: int
    status: str = "validating"
    key_id: str = ""
    key_hash: str = ""
    metadata: dict[str, str] | None = None
    model: str | None = None
    etag: str = ""
    shards: int | None = None
    at_once: int = 1
    done: int = 0
    total: int = 0
    completed: int = 0
    failed: int = 0
    tokens: int = 0
    ends: str | None = None
    faults: tuple[Fault, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    times: Mapping[str, int] = field(default_factory=dict)

    @property
    def output_key(self) -> str:
        return f"out/{self.account}/{self.id}_output.jsonl"

    @property
    def error_key(self) -> str:
        return f"out/{self.account}/{self.id}_error.jsonl"

    def wire(self) -> dict[str, Any]:
        faults = {"object": "list", "data": [each.wire() for each in self.faults]} if self.faults else None
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": ENDPOINT,
            "model": self.model or None,  # none of its lines could be read
            "errors": faults,
            "input_file_id": self.input_file_id,
            "completion_window": WINDOW,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            **{name: self.times.get(name) for name in TIMES},
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": self.tokens,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.tokens,
            },
            "metadata": self.metadata,
        }


def asked(values: Mapping[str, Any]) -> Asked:
    """What a body asks for. Raises the first failure, 400."""
    file_id = fields.given(values, "input_file_id", str)
    if file_id is None:
        raise errors.MISSING_PARAMETER.error(param="input_file_id", field="input_file_id")
    for name, choice in (("endpoint", ENDPOINT), ("completion_window", WINDOW)):
        if fields.choice(values, name, (choice,)) is None:
            raise errors.MISSING_PARAMETER.error(param=name, field=name)
    metadata = fields.given(values, "metadata", dict)
    _check(metadata or {})
    kept = fields.given(values, "output_expires_after", dict)
    return Asked(file_id, metadata, files.lasting(kept, "output_expires_after"))


def page(query: Mapping[str, str]) -> files.Page:
    """The page of batches, the newest first, that a query asks for. Raises 400."""
    known = {name: query[name] for name in ("after", "limit") if name in query}
    return files.page(known, MOST, DEFAULT)


def _check(metadata: Mapping[str, Any]) -> None:
    if len(metadata) > PAIRS:
        raise errors.INVALID_VALUE.error(param="metadata", value=f"{len(metadata)} pairs", values=f"at most {PAIRS}")
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise fields.wrong_type("metadata", "strings", value)
        if len(name) > NAME or len(value) > VALUE:
            most = f"names of {NAME} characters and values of {VALUE} at most"
            raise errors.INVALID_VALUE.error(param="metadata", value=name, values=most)


def dumps(faults: tuple[Fault, ...]) -> str:
    """Faults in one line, as a row keeps them."""
    return json.dumps([each.wire() for each in faults])


def loads(text: str) -> tuple[Fault, ...]:
    return tuple(Fault(**each) for each in json.loads(text))
