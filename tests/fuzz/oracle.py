"""What the contract says of a request: its first failing check, in the order of section 3. Written from the contract
alone, for requests whose texts are short, or made of one word."""

import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fuzz.bodies import NAMES, WORD
from tests.fuzz.case import Case
from tests.fuzz.requests import GETS, POSTS

DIMENSIONS = 384
CONTENT = 254  # tokens of a text

_KEYED = {"/v1/models"}
_BARE = {"embeddings", "models", "pricing"}  # what may stand without /v1
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME = re.compile("[ -~]{1,255}")
_WORDS = re.compile(f"(?:{WORD})*")


@dataclass(frozen=True)
class Verdict:
    """`tokens`: of a 200 to an embedding, where the contract alone says how many."""

    status: int
    code: str | None = None
    param: str | None = None
    tokens: int | None = None


Fault = tuple[str, str]  # code and param


def judge(case: Case) -> Verdict:
    """The answer that this request must get."""
    path = _canonical(urllib.parse.unquote(case.target.partition("?")[0]))
    name = path.removeprefix("/v1/models/") if path.startswith("/v1/models/") else None
    known = path in POSTS or path in GETS or name is not None
    if case.method == "OPTIONS":
        return Verdict(204 if known or _is_preflight(case) else 404)
    if not known:
        return Verdict(404)
    if (case.method != "POST") if path in POSTS else (case.method not in ("GET", "HEAD")):
        return Verdict(405)
    if path in POSTS or path in _KEYED or name is not None:
        if case.who == "nobody":
            return Verdict(401)
        if case.who == "stranger":
            return Verdict(401, "invalid_api_key")
    if case.who == "admin" and path in POSTS:
        return Verdict(403, "insufficient_permissions")
    codings = {coding.strip().lower() for coding in (case.header("content-encoding") or "").split(",")}
    if codings - {"", "identity"}:
        return Verdict(415, "unsupported_media_type")
    if path not in POSTS:
        return Verdict(404, "model_not_found", "model") if name is not None and name not in NAMES else Verdict(200)
    if (case.header("content-type") or "").lower().startswith("multipart/form-data"):
        return Verdict(415, "unsupported_media_type")
    name = case.header("idempotency-key")
    if name is not None and not _NAME.fullmatch(name):
        return Verdict(400, "invalid_idempotency_key", "Idempotency-Key")
    if case.body.values is None:
        return Verdict(400)
    for code, param in _faults(case.body.values):
        return Verdict(404 if code == "model_not_found" else 400, code, param)
    return Verdict(200, tokens=_tokens(case.body.values["input"], cut=bool(case.body.values.get("truncate"))))


def _canonical(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    return "/" + "/".join(["v1", *parts] if parts and parts[0] in _BARE else parts)


def _is_preflight(case: Case) -> bool:
    return case.header("origin") is not None and bool(
        _TOKEN.fullmatch(case.header("access-control-request-method") or "")
    )


def _faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """All that is wrong with a request's fields, in the order in which they are looked at."""
    model = values.get("model")
    yield from [("missing_required_parameter", "model")] if model is None else _kind("model", model, str)
    if model not in NAMES:
        yield "model_not_found", "model"
    yield from _input_faults(values.get("input"))
    for field, check in _FIELDS.items():
        if values.get(field) is not None:
            yield from check(field, values[field])
    yield from _token_faults(values["input"], cut=values.get("truncate") is True)


def _kind(field: str, value: Any, kind: type) -> Iterator[Fault]:
    if type(value) is not kind:
        yield "invalid_type", field


def _one_of(*choices: str, unserved: tuple[str, ...] = ()) -> Callable[[str, Any], Iterator[Fault]]:
    def check(field: str, value: Any) -> Iterator[Fault]:
        yield from _kind(field, value, str)
        if value not in choices:
            yield "unsupported_value" if value in unserved else "invalid_value", field

    return check


def _dimensions(field: str, value: Any) -> Iterator[Fault]:
    yield from _kind(field, value, int)
    if value != DIMENSIONS:
        yield "invalid_value", field


def _types(field: str, value: Any) -> Iterator[Fault]:
    yield from _kind(field, value, list)
    if not value:
        yield "empty_array", field
    for index, name in enumerate(value):
        yield from _kind(f"{field}[{index}]", name, str)
        if name not in ("dense", "sparse", "multi_vector"):
            yield "invalid_value", field
    if set(value) != {"dense"}:
        yield "unsupported_value", field


_FIELDS: dict[str, Callable[[str, Any], Iterator[Fault]]] = {
    "encoding_format": _one_of("float", "base64"),
    "dimensions": _dimensions,
    "user": lambda field, value: _kind(field, value, str),
    "truncate": lambda field, value: _kind(field, value, bool),
    "embedding_types": _types,
    "output_dtype": _one_of("float", unserved=("int8", "uint8", "binary", "ubinary")),
    "multi_vector_dtype": _one_of("float16", "float32"),
}


def _input_faults(value: Any) -> Iterator[Fault]:
    if value is None:
        yield "missing_required_parameter", "input"
    if isinstance(value, str):
        return
    yield from _kind("input", value, list)
    if not value:
        yield "empty_array", "input"
    kind = type(value[0])
    if kind not in (str, int, list):
        yield "invalid_type", "input[0]"
    for index, item in enumerate(value):
        yield from _kind(f"input[{index}]", item, kind)
        if item == []:
            yield "empty_array", f"input[{index}]"
        for position, token in enumerate(item if kind is list else ()):
            yield from _kind(f"input[{index}][{position}]", token, int)
    if len(value) > 2048 and kind is not int:
        yield "array_above_max_length", "input"


def _token_faults(value: Any, *, cut: bool) -> Iterator[Fault]:
    """Of inputs that are all right in kind."""
    for index, item in enumerate(inputs(value)):
        if isinstance(item, list):
            if not all(0 <= token <= 100255 or token in (100257, 100258, 100259, 100260, 100276) for token in item):
                yield "invalid_token_id", f"input[{index}]"
        elif not cut and (words(item) or 0) > CONTENT:
            yield "context_length_exceeded", f"input[{index}]"


def inputs(value: Any) -> list[str | list[int]]:
    """What gets a vector each."""
    if isinstance(value, str):
        return [value]
    return [value] if isinstance(value[0], int) else value


def _tokens(value: Any, *, cut: bool) -> int | None:
    counts = [words(item) if isinstance(item, str) else None for item in inputs(value)]
    if None in counts:
        return None
    return sum(min(count or 0, CONTENT) if cut else count or 0 for count in counts)


def words(text: str) -> int | None:
    """How often a text repeats WORD, if it is nothing else."""
    return len(text) // len(WORD) if _WORDS.fullmatch(text) else None
