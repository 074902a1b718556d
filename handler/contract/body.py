"""A JSON body, read strictly: UTF-8, no NaN or Infinity, no number beyond a double, at most 100 levels deep."""

import json
import math
import re
from typing import Any

from handler.contract import errors

_DEPTH = 100
# Possessive, and content with a string that never ends: the time is linear in the body, whatever it holds.
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_DIGITS = 309  # the longest integer that a double can hold has so many


def read(body: bytes) -> dict[str, Any]:
    """The body's object. Of duplicate keys the last wins; lone surrogates become U+FFFD. Raises INVALID_JSON."""
    try:
        # The codec that takes a byte order mark off is a module, which an ordinary body does not need.
        text = body.decode("utf-8-sig" if body.startswith(b"\xef\xbb\xbf") else "utf-8")
        if not _shallow(text):
            raise ValueError
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_finite_integer)
    except (ValueError, RecursionError):
        raise errors.INVALID_JSON.error() from None
    if not isinstance(value, dict):
        raise errors.INVALID_JSON.error()
    return _scalars(value) if "\\u" in text else value  # an escape is the only way to a lone surrogate


def _shallow(text: str) -> bool:
    """Whether no more than _DEPTH brackets are open at once, outside strings."""
    if text.count("[") + text.count("{") <= _DEPTH:
        return True
    depth = 0
    for match in _BRACKETS.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth > _DEPTH:
                return False
        elif match[0] in "]}":
            depth -= 1
    return True


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
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_scalars(item) for item in value]
    if isinstance(value, dict):
        return {_scalars(key): _scalars(item) for key, item in value.items()}
    return value
