"""JSON as somebody writes it: values beside tokens that Python's own writer would never make."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DEPTH = 100  # levels that a body may have


class NotJsonError(Exception):
    """The text holds something that JSON, or the contract's strict reading of it, does not."""


@dataclass(frozen=True)
class Token:
    """A piece of text in a value's place: what it means, or that it makes all around it no JSON. `levels`: of it."""

    text: str
    value: Any = None
    broken: bool = True
    levels: int = 0


BROKEN = tuple(
    map(
        Token,
        (
            *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1.8e308", "9" * 310, "-" + "9" * 5000),
            *("01", "+1", ".5", "1.", "1e", "0x10", "--1", "True", "None", "undefined", "nul", ""),
            *("'text'", '"text', '"\\x41"', '"\\u12"', '"line\nbreak"', '"\0"', '"\t"'),
            *("[1,]", "[,1]", "[1 2]", "{,}", '{"a"}', '{"a":}', "{a:1}", "{1:2}", "[", "]", "}", "/**/1", "1//"),
            *("[" * 100 + "]" * 100, '{"a":' * 100 + "1" + "}" * 100, "[" * 20_000),
        ),
    )
)
UNUSUAL = (
    Token("1.0", 1.0, broken=False),
    Token("384.0", 384.0, broken=False),
    Token("3.84e2", 384.0, broken=False),
    Token("-0", 0, broken=False),
    Token("1E-999", 0.0, broken=False),
    Token("1.7976931348623157e308", 1.7976931348623157e308, broken=False),
    Token("1" * 309, int("1" * 309), broken=False),
    Token('"\\ud83d\\ude00"', "\U0001f600", broken=False),
    Token('"\\ude00\\uD83d"', "\ufffd\ufffd", broken=False),
    Token('"\\/\\b\\f\\n\\r\\t\\u0000"', "/\b\f\n\r\t\0", broken=False),
    Token("[" * 99 + "]" * 99, [[[]]], broken=False, levels=99),
    Token('{"a":{},"a":[]}', {"a": []}, broken=False, levels=2),
)


def text(value: Any, *, escaped: bool) -> str:
    """The value in JSON; `escaped`: in ASCII alone, which half of a surrogate pair must be."""
    if isinstance(value, Token):
        return value.text
    if isinstance(value, list):
        return f"[{','.join(text(item, escaped=escaped) for item in value)}]"
    if isinstance(value, dict):
        return members(list(value.items()), escaped=escaped)
    if isinstance(value, str) and not escaped:
        escaped = any("\ud800" <= character <= "\udfff" for character in value)
    return json.dumps(value, ensure_ascii=escaped)


def members(pairs: Sequence[tuple[str, Any]], *, escaped: bool) -> str:
    """An object with these members in this order, names repeated where they are."""
    return f"{{{','.join(f'{text(name, escaped=escaped)}:{text(value, escaped=escaped)}' for name, value in pairs)}}}"


def meaning(value: Any, level: int = 1) -> Any:
    """What the text of the value says. Raises NotJsonError. `level`: how many brackets are open around it."""
    if isinstance(value, Token):
        if value.broken or level + value.levels > DEPTH:
            raise NotJsonError
        return value.value
    if isinstance(value, list):
        return [meaning(item, _deeper(level)) for item in value]
    if isinstance(value, dict):
        return {name: meaning(item, _deeper(level)) for name, item in value.items()}
    return value


def _deeper(level: int) -> int:
    if level == DEPTH:
        raise NotJsonError
    return level + 1
