"""A JSON body, read strictly: UTF-8, no NaN or Infinity, no number beyond a double, at most 100 levels deep."""

import gc
import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from handler.contract import errors

JSON = "application/json"  # what every body is, of a request and of an answer

_DEPTH = 100
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # +1 and -1 in a byte with a sign
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_CHUNK = 1 << 16  # bytes, looked at in some milliseconds: between them other threads get the interpreter
_MANY = 10_000  # lists and objects: a request that is accepted has 2,050 at most
_DIGITS = 309  # the longest integer that a double can hold has so many
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_SURROGATES = re.compile("[\ud800-\udfff]")
_alone = threading.Lock()


def read(body: bytes) -> dict[str, Any]:
    """The body's object. Raises INVALID_JSON."""
    found = value(body)
    if not isinstance(found, dict):
        raise errors.INVALID_JSON.error()
    return found


def value(body: bytes) -> Any:
    """What the body is, object or not. Of duplicate keys the last wins; lone surrogates become U+FFFD. Raises
    INVALID_JSON."""
    # Called for each of 300,000 token ids, it would take longer than all the rest.
    parse_int = _finite_integer if b"0" * _DIGITS in body.translate(_ZEROS) else None
    try:
        # The codec that takes a byte order mark off is a module, which an ordinary body does not need.
        text = body.decode("utf-8-sig" if body.startswith(b"\xef\xbb\xbf") else "utf-8")
        brackets = body.count(b"[") + body.count(b"{")
        if brackets > _DEPTH and not _shallow(body):
            raise ValueError
        with _room(brackets):
            found = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=parse_int)
    except (ValueError, RecursionError):
        raise errors.INVALID_JSON.error() from None
    # An escape is the only way to a lone surrogate; of two that are a pair one character has been made.
    return _scalars(found) if "\\ud" in text or "\\uD" in text else found


def _shallow(body: bytes) -> bool:
    """Whether no more than _DEPTH brackets are open at once, outside strings. What is no JSON the parser refuses."""
    if b"\\" in body:  # then each quote that is left begins or ends a string
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    depth = quotes = 0
    for start in range(0, len(body), _CHUNK):
        parts = body[start : start + _CHUNK].split(b'"')
        steps = b"".join(parts[quotes % 2 :: 2]).translate(_STEPS, _NO_BRACKETS)
        quotes += len(parts) - 1
        depths = [*accumulate(memoryview(steps).cast("b"), initial=depth)]
        if max(depths) > _DEPTH:
            return False
        depth = depths[-1]
    return True


@contextmanager
def _room(containers: int) -> Iterator[None]:
    """Many lists and objects take up to 64 times their bytes: they are made of one body at a time. They hold no cycle,
    and the collector, which would look for one again and again, takes several times as long as the parser."""
    if containers <= _MANY:
        yield
        return
    with _alone:
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            gc.freeze()
            gc.unfreeze()  # among the old, unseen: as young ones all would be looked at next
            if collecting:
                gc.enable()


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError
    return number


def _finite_integer(digits: str) -> int:
    if len(digits) > _DIGITS + 1 or abs(number := int(digits)) > 1.7976931348623157e308:
        raise ValueError
    return number


def _scalars(value: Any) -> Any:
    """The same value with every lone surrogate replaced."""
    if isinstance(value, str):
        return _SURROGATES.sub("\ufffd", value)
    if isinstance(value, list):
        return [_scalars(item) for item in value]
    if isinstance(value, dict):
        return {_scalars(key): _scalars(item) for key, item in value.items()}
    return value
