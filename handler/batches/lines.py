"""A batch's lines: read out of a file as it streams by, and written into its output and error files."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from handler.contract import body, errors, fields
from handler.contract.batches import (
    ENDPOINT,
    MISSING,
    NOT_AN_OBJECT,
    NOT_JSON,
    TOO_LONG,
    WRONG_METHOD,
    WRONG_TYPE,
    WRONG_URL,
    Fault,
    Unreached,
)

BOM = b"\xef\xbb\xbf"
_DEEP = 100  # brackets: fewer cannot be too deep for the strict reader
# Possessive, or each character would be remembered at which a string may end otherwise; and a string need not be
# closed, or where a head ends in one, it would be begun again at each quote in it.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[{}\[\]]', re.DOTALL)
# The same from an end to its begin: there a quote is in a string if an odd number of backslashes follow.
_NEKOT = re.compile(rb'"(?:[^"]++|"(?=\\(?:\\\\)*+(?!\\)))*+"?+|[{}\[\]]')
_EMAN = b'"custom_id"'[::-1]
_TAIL = 16 << 10  # bytes of the end of a line that is too long: Go's keys are sorted, and its body comes first


class FaultError(Exception):
    """A line for whose sake its whole file fails. `values`: of the fault's message."""

    def __init__(self, fault: Fault, param: str | None = None, **values: object) -> None:
        super().__init__(fault.code)
        self.fault, self.param, self.values = fault, param, values

    def at(self, line: int, most: int) -> Fault:
        """`most`: bytes of a line."""
        return self.fault.at(line, self.param, most=most, **self.values)


@dataclass(frozen=True)
class Line:
    """A line that is not blank. `number`: from 1, of all; `offset`: of its first byte in the file; `end`: behind its
    line feed; `raw`: without its line end, and of one that is too long, `cut`, the head alone; then `tail`: its end."""

    number: int
    offset: int
    end: int
    raw: bytes
    cut: bool = False
    tail: bytes = b""


@dataclass(frozen=True)
class Request:
    """What a line asks for; `body` is None where the line is too long to be read."""

    custom_id: str
    body: Mapping[str, Any] | None


@dataclass(frozen=True)
class Unreadable:
    """A line of a file that was good when it was planned, and is not now: under other settings."""

    custom_id: str | None
    body: None = None


def split(chunks: Iterable[bytes], longest: int, start: int = 0) -> Iterator[Line]:
    """The lines of a file, or of a part of it that begins with a line at `start`. No more than a chunk, a line of
    `longest` bytes and the end of one is held."""
    rest, offset, number, skipped = b"", start, 0, 0  # skipped: bytes between head and tail of a line that are not held
    for chunk in chunks:
        *ended, rest = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        for raw in ended:
            number += 1
            end = offset + skipped + len(raw) + 1
            yield from _line(number, offset, end, raw, longest, cut=skipped > 0)
            offset, skipped = end, 0
        if len(rest) > longest + _TAIL:
            skipped += len(rest) - longest - _TAIL
            rest = rest[:longest] + rest[-_TAIL:]
    if rest:
        yield from _line(number + 1, offset, offset + skipped + len(rest), rest, longest, cut=skipped > 0)


def _line(number: int, offset: int, end: int, raw: bytes, longest: int, *, cut: bool) -> Iterator[Line]:
    raw = raw.removesuffix(b"\r")
    head, tail = raw[:longest], raw[-_TAIL:]
    if not offset:
        head, raw = head.removeprefix(BOM), raw.removeprefix(BOM)
    if cut or len(raw) > longest:
        yield Line(number, offset, end, head, cut=True, tail=tail)
    elif raw and not raw.isspace():
        yield Line(number, offset, end, raw)


def request(line: Line) -> Request:
    """What a line asks for. Raises FaultError."""
    if line.cut:
        custom_id = _custom_id(line.raw)
        if custom_id is None:
            custom_id = _custom_id_at_end(line.tail)
        if custom_id is None:
            raise FaultError(TOO_LONG)
        return Request(custom_id, None)
    values = _object(line.raw)
    custom_id, method, url = (_given(values.get(name), str, name) for name in ("custom_id", "method", "url"))
    asked = _given(values.get("body"), dict, "body")
    _given(asked.get("model"), str, "body.model")
    if method != "POST":
        raise FaultError(WRONG_METHOD, "method", given=method)
    if url != ENDPOINT:
        raise FaultError(WRONG_URL, "url", given=url)
    return Request(custom_id, asked)


def planned(line: Line) -> Request | Unreadable:
    """What a line asks for whose file is good: it fails for itself, as there is nothing else that could."""
    try:
        return request(line)
    except FaultError:
        return Unreadable(_custom_id(line.raw))


def _given(value: Any, kind: type, param: str) -> Any:
    if value is None:
        raise FaultError(MISSING, param)
    if type(value) is not kind:
        raise FaultError(WRONG_TYPE, param, expected=fields.KINDS[kind], got=fields.kind_of(value))
    return value


def inputs(asked: Mapping[str, Any]) -> int:
    """How many inputs a body has, whatever they are."""
    given = asked.get("input")
    return len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1


def _object(raw: bytes) -> dict[str, Any]:
    """By the fast reader where it agrees with the strict one, which has the last word."""
    try:
        if raw.count(b"[") + raw.count(b"{") > _DEEP:
            raise ValueError
        values = orjson.loads(raw)
    except ValueError:
        try:
            values = body.value(raw)
        except errors.ApiError:
            raise FaultError(NOT_JSON) from None
    if not isinstance(values, dict):
        raise FaultError(NOT_AN_OBJECT, got=fields.kind_of(values))
    return values


def _custom_id(head: bytes) -> str | None:
    """The custom_id of an object of which the head is there, if it is in it."""
    depth, before = 0, b""
    for token in _TOKEN.finditer(head):
        mark = token[0]
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and before == b'"custom_id"' and head[: token.start()].rstrip().endswith(b":"):
            return _text(mark)
        before = mark
    return None


def _custom_id_at_end(tail: bytes) -> str | None:
    """The custom_id of an object of which the tail is there, if it is in it. That may begin in a string, so it is read
    from its end, where none is open; of an object that is well-formed it is the same."""
    text = tail.rstrip()[::-1]
    depth, before, end = 0, b"", 0
    for token in _NEKOT.finditer(text):
        mark = token[0]
        if mark in (b"}", b"]"):
            depth += 1
        elif mark in (b"{", b"["):
            depth -= 1
        elif depth == 1 and mark == _EMAN and before[:1] == b'"' and text[end : token.start()].strip() == b":":
            # Where nothing is known of what is before the key, its first quote may be one in a string.
            is_key = text[token.end() :].lstrip()[:1] in (b",", b"{")
            return _text(before[::-1]) if is_key else None
        before, end = mark, token.end()
    return None


def _text(token: bytes) -> str | None:
    try:
        return str(orjson.loads(token))
    except ValueError:
        return None


def answered(name: str, request: str, custom_id: str | None, status: int, answer: bytes) -> bytes:
    """A line that was executed, with its response."""
    head = b'{"id":%b,"custom_id":%b,"response":{"status_code":%d,"request_id":"req_%b","body":'
    told = (orjson.dumps(name), orjson.dumps(custom_id), status, request.encode())
    return b'%b%b},"error":null}\n' % (head % told, answer)


def named(batch_id: str, offset: int) -> str:
    """What the ids of a line and of its request are made of: 32 hex."""
    return hashlib.sha256(f"{batch_id}#{offset}".encode()).hexdigest()[:32]


class Writer:
    """Lines of a batch's files. Ids derive from batch and offset: a shard that is done twice has the same lines."""

    def __init__(self, batch_id: str) -> None:
        self._batch_id = batch_id

    def answered(self, offset: int, custom_id: str | None, status: int, answer: bytes) -> bytes:
        """A line that was executed, with its response: of the output file at 200, else of the error file."""
        name = named(self._batch_id, offset)
        return answered(f"batch_req_{name}", name, custom_id, status, answer)

    def unreached(self, offset: int, custom_id: str | None, why: Unreached) -> bytes:
        """A line that was not."""
        name = f"batch_req_{named(self._batch_id, offset)}"
        told = {"id": name, "custom_id": custom_id, "response": None, "error": vars(why)}
        return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)
