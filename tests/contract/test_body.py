import gc
import json
import threading
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
        b'{"a":' * 101 + b"1" + b"}" * 101,
        b'{"a": ' + b'[{"b":' * 50 + b"1" + b"}]" * 50 + b"}",
        b'{"a": ' + b"[" * 100 + b"]" * 100 + b', "a": 1}',
        b'{"a": -' + b"9" * 309 + b"}",
        b'{"a": 1.8e308}',
        b'{"a": 01}',
        b"{'a': 1}",
        b'{"a": "\n"}',
        b'{"a": 1} {}',
        b'{"a": ' + b"[" * 101 + b"}" * 101 + b"}",
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


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":[' + b"[]," * 2_000_000 + b"1]}",
        b'{"a":{' + b",".join(b'"%d":[]' % number for number in range(300_000)) + b"}}",
        b'{"a":"' + b"[{" * 3_000_000 + b'"}',
        b"{" + b'"a":"x",' * 1_000_000 + b'"a":"y"}',
        b'{"a":[' + b"123456789," * 600_000 + b"1]}",
        rb'{"a":"' + rb"\ud800" * 1_000_000 + b'"}',
    ],
    ids=["arrays", "members", "brackets in a text", "duplicate keys", "integers", "surrogates"],
)
def test_a_large_body_takes_as_long_as_its_parts_are_many(raw: bytes) -> None:
    """All of it is six megabytes, what a function URL takes."""
    start = time.perf_counter()
    body.read(raw)
    assert time.perf_counter() - start < 5


LARGEST = 8 << 20  # of a body of 300,000 tokens, if all of it is escaped


@pytest.mark.parametrize(
    "raw",
    [
        b'{"x":[' + b",".join([b"[" * 97 + b"]" * 97] * (LARGEST // 195)) + b"]}",
        b'{"x":[' + b"[]," * (LARGEST // 3 - 10) + b"1]}",
        b'{"x":[' + b"{}," * (LARGEST // 3 - 10) + b"1]}",
        b'{"x":{' + b",".join(b'"%07d":[]' % number for number in range(LARGEST // 13 - 10)) + b"}}",
        b'{"x":["' + b'","[' * (LARGEST // 4 - 10) + b'"]}',
        b'{"x":[[' + b'"\\"",' * (LARGEST // 5 - 200) + b"1]" + b",[]" * 101 + b"]}",
        b'{"x":[' + b"1," * (LARGEST // 2 - 10) + b"1]}",
    ],
    ids=["deep", "arrays", "objects", "members", "brackets in texts", "escapes", "integers"],
)
def test_while_the_largest_body_is_read_others_wait_for_less_than_a_second(raw: bytes) -> None:
    """In time of this process's own, whatever else the machine has to do."""
    assert LARGEST * 0.9 < len(raw) <= LARGEST
    waits, done = [0.0], threading.Event()

    def wait() -> None:
        last = time.process_time()
        while not done.wait(0.01):
            waits.append((now := time.process_time()) - last)
            last = now

    other = threading.Thread(target=wait)
    other.start()
    body.read(raw)
    done.set()
    other.join()
    assert max(waits) < 1
    assert gc.isenabled()


@pytest.mark.parametrize("size", [(1 << 16) - 1, 1 << 16, (1 << 16) + 1, 200_000])
@pytest.mark.parametrize("filling", [b"x", b'\\"', b"\\\\", b"["])
def test_a_text_of_any_length_hides_its_brackets_and_no_others(size: int, filling: bytes) -> None:
    """Also where one begins, ends or is escaped at a seam of what is looked at together."""
    text = b'"' + filling * (size // len(filling)) + b'"'
    assert len(body.read(b'{"a": [%b, %b]}' % (text, b"[" * 98 + b"]" * 98))["a"]) == 2
    refused(b'{"a": [%b, %b]}' % (text, b"[" * 99 + b"]" * 99))


def test_a_hundred_levels_are_read() -> None:
    nested = body.read(b'{"a": ' + b"[" * 99 + b"]" * 99 + b"}")
    assert json.dumps(nested).count("[") == 99
    mixed = body.read(b'{"a": ' + b'[{"b":' * 49 + b"[]" + b"}]" * 49 + b"}")
    assert json.dumps(mixed).count("{") == 50


def test_brackets_inside_texts_are_text() -> None:
    text = '[{"\\' * 200
    assert body.read(json.dumps({"input": text}).encode()) == {"input": text}


def test_of_duplicate_keys_the_last_wins() -> None:
    assert body.read(b'{"input": "a", "input": "b"}') == {"input": "b"}


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert body.read(rb'{"input": ["a\ud800b", "\ud83d\ude00"]}') == {"input": ["a\ufffdb", "😀"]}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (rb"\uD83D\uDE00", "😀"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\ud83dx\ude00", "\ufffdx\ufffd"),
        (rb"\ud83d\ud83d\ude00", "\ufffd😀"),
        (rb"\uDFFF", "\ufffd"),
        (rb"\\ud800", r"\ud800"),
        (rb"\ud7ff\ue000", "\ud7ff\ue000"),
        (rb"Gr\u00f6\u00dfe", "Größe"),
    ],
)
def test_every_text_of_a_body_is_unicode(raw: bytes, text: str) -> None:
    found = body.read(b'{"k' + raw + b'": [{"x": "' + raw + b'"}]}')
    assert found == {f"k{text}": [{"x": text}]}
    text.encode()


def test_a_nul_character_is_text() -> None:
    assert body.read(rb'{"input": "a\u0000b"}') == {"input": "a\0b"}


def test_the_largest_double_is_read() -> None:
    assert body.read(b'{"a": 1.7976931348623157e308}')["a"] == 1.7976931348623157e308
    assert body.read(b'{"a": %d}' % int(1.7976931348623157e308))["a"] == int(1.7976931348623157e308)
    assert body.read(b'{"a": "' + b"9" * 5000 + b'"}') == {"a": "9" * 5000}


def test_a_byte_order_mark_is_no_part_of_the_body() -> None:
    assert body.read(b'\xef\xbb\xbf{"a": "\xef\xbb\xbf"}') == {"a": "\ufeff"}
