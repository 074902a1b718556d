import json
import time

import pytest

from handler.contract import body, errors


def refused(raw: bytes) -> errors.ApiError:
    with pytest.raises(errors.ApiError) as caught:
        body.read(raw)
    return caught.value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 400 + b"}",
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\xff"}',
        b'{"a": 1,}',
        b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"a": ' + b"[" * 100_000,
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_not_strict_json_is_a_parse_error(raw: bytes) -> None:
    error = refused(raw)
    assert (error.status, error.problem.code, error.param) == (400, None, None)
    assert error.message.startswith("We could not parse the JSON body of your request.")


def test_a_body_made_to_be_slow_is_refused_as_fast_as_any() -> None:
    """A string of escapes that never ends, behind many brackets: with backtracking, minutes for this one."""
    start = time.perf_counter()
    refused(b'{"a":[' + b"[]," * 101 + b'"' + b'\\"' * 2_000_000)
    assert time.perf_counter() - start < 10


def test_a_hundred_levels_are_read() -> None:
    nested = body.read(b'{"a": ' + b"[" * 99 + b"]" * 99 + b"}")
    assert json.dumps(nested).count("[") == 99


def test_brackets_inside_texts_are_text() -> None:
    text = '[{"\\' * 200
    assert body.read(json.dumps({"input": text}).encode()) == {"input": text}


def test_of_duplicate_keys_the_last_wins() -> None:
    assert body.read(b'{"input": "a", "input": "b"}') == {"input": "b"}


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert body.read(rb'{"input": ["a\ud800b", "\ud83d\ude00"]}') == {"input": ["a\ufffdb", "😀"]}


def test_a_nul_character_is_text() -> None:
    assert body.read(rb'{"input": "a\u0000b"}') == {"input": "a\0b"}


def test_the_largest_double_is_read() -> None:
    assert body.read(b'{"a": 1.7976931348623157e308}')["a"] == 1.7976931348623157e308
