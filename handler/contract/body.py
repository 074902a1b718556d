"""A JSON body, read strictly: UTF-8, no NaN or Infinity, no number beyond a double, at most 100 levels deep."""

import json
import math
import re
from typing import Any

from handler.contract import errors

JSON = "application/json"  # what every body is, of a request and of an answer

_DEPTH = 100
# Possessive, and content with a string that never ends: the time is linear in the body, whatever it holds.
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DIGITS = 309  # the longest integer that a double can hold has so many
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_SURROGATES = re.compile("[\ud800-\udfff]")


def read(body: bytes) -> dict[str, Any]:
    """The body's object. Of duplicate keys the last wins; lone surrogates become U+FFFD. Raises INVALID_JSON."""
    # Called for each of 300,000 token ids, it would take longer than all the rest.
    parse_int = _finite_integer if b"0" * _DIGITS in body.translate(_ZEROS) else None
    try:
        # The codec that takes a byte order mark off is a module, which an ordinary body does not need.
        text = body.decode("utf-8-sig" if body.startswith(b"\xef\xbb\xbf") else "utf-8")
        if not _shallow(body):
            raise ValueError
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=parse_int)
    except (ValueError, RecursionError):
        raise errors.INVALID_JSON.error() from None
    if not isinstance(value, dict):
        raise errors.INVALID_JSON.error()
    # An escape is the only way to a lone surrogate; of two that are a pair one character has been made.
    return _scalars(value) if "\\ud" in text or "\\uD" in text else value


def _shallow(body: bytes) -> bool:
    """Whether no more than _DEPTH brackets are open at once, outside strings."""
    if body.count(b"[") + body.count(b"{") <= _DEPTH:
        return True
    brackets = _STRINGS.sub(b"", body).translate(_BRACKETS, _NO_BRACKETS)
    for _ in range(_DEPTH):  # each time the innermost pairs go; which kind closes which is the parser's matter
        brackets = brackets.replace(b"[]", b"")
    return not brackets


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
