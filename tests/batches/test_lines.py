"""Lines of a batch's file: whatever a file has, each good line is read, and each bad one is told."""

import json
import time
import tracemalloc
from contextlib import nullcontext

import pytest

from handler.batches import lines
from handler.batches.lines import FaultError, Writer
from handler.contract.batches import EXPIRED, TOO_LONG

GOOD = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "a"}}


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def line(raw: bytes) -> lines.Line:
    [found] = lines.split([raw], 1 << 20)
    return found


def faulty(**changes: object) -> bytes:
    return json.dumps({name: value for name, value in (GOOD | changes).items() if value is not None}).encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [b"", b"\n", b"\n\n \t\n"])
def test_a_bom_line_ends_blank_lines_and_a_last_line_without_end_lose_nothing(
    size: int, end: bytes, last: bytes
) -> None:
    data = lines.BOM + b'{"a":1}' + end + end + b'  {"b":"\xc3\xa9"} ' + end + b'{"c":3}' + last
    found = list(lines.split(chunks(data, size), 100))
    assert [json.loads(each.raw) for each in found] == [{"a": 1}, {"b": "é"}, {"c": 3}]
    assert [each.number for each in found] == [1, 3, 4]
    for each in found:  # a line is where it says that it is
        assert json.loads(data[each.offset : each.end].removeprefix(lines.BOM)) == json.loads(each.raw)


@pytest.mark.parametrize("size", [1, 5, 64, 1000])
def test_a_line_that_is_too_long_is_held_by_its_head_alone(size: int) -> None:
    data = b"short\n" + b"x" * 300 + b"\nlast\n" + b"y" * 200
    found = list(lines.split(chunks(data, size), 10))
    assert [(each.raw, each.cut) for each in found] == [
        (b"short", False),
        (b"x" * 10, True),
        (b"last", False),
        (b"y" * 10, True),
    ]
    assert [(each.offset, each.end) for each in found] == [(0, 6), (6, 307), (307, 312), (312, 512)]


@pytest.mark.parametrize("size", [1000, 5000, 1 << 20])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_of_a_line_that_is_too_long_the_end_is_kept_as_well(size: int, end: bytes) -> None:
    long = bytes(n % 251 for n in range(100_000)).replace(b"\n", b"N")
    data = b"short\n" + long + end
    found = list(lines.split(chunks(data, size), 300))
    assert [(each.raw, each.cut) for each in found] == [(b"short", False), (long[:300], True)]
    assert long.endswith(found[1].tail)
    assert len(found[1].tail) == 16 << 10
    assert (found[1].offset, found[1].end) == (6, len(data))


def test_a_part_of_a_file_has_the_offsets_of_the_whole() -> None:
    data = b"one\ntwo\nthree\n"
    whole = [(each.offset, each.end, each.raw) for each in lines.split([data], 99)]
    part = [(each.offset, each.end, each.raw) for each in lines.split([data[4:]], 99, 4)]
    assert part == whole[1:]


def test_a_good_line_is_what_it_says() -> None:
    found = lines.request(line(json.dumps(GOOD).encode()))
    assert (found.custom_id, found.body) == ("1", GOOD["body"])


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b'"text"', "invalid_json_line", None),
        (b"null", "invalid_json_line", None),
        (b'{"custom_id":"\xff"}', "invalid_json_line", None),
        (b'{"custom_id":NaN}', "invalid_json_line", None),
        (b'{"custom_id":"1","more":' + b"[" * 101 + b"]" * 101 + b"}", "invalid_json_line", None),
        (faulty(custom_id=None), "missing_required_parameter", "custom_id"),
        (faulty(custom_id=7), "missing_required_parameter", "custom_id"),
        (faulty(method=None), "missing_required_parameter", "method"),
        (faulty(method=5), "missing_required_parameter", "method"),
        (faulty(url=True), "missing_required_parameter", "url"),
        (faulty(body={"model": 7}), "missing_required_parameter", "body.model"),
        (faulty(url=None), "missing_required_parameter", "url"),
        (faulty(body=None), "missing_required_parameter", "body"),
        (faulty(body='{"model":"m"}'), "missing_required_parameter", "body"),
        (faulty(body={"input": "a"}), "missing_required_parameter", "body.model"),
        (faulty(url="/v1/chat/completions"), "url_mismatch", "url"),
        (faulty(method="GET"), "url_mismatch", "method"),
    ],
)
def test_a_line_for_which_the_file_fails(raw: bytes, code: str, param: str | None) -> None:
    with pytest.raises(FaultError) as failed:
        lines.request(line(raw))
    assert (failed.value.fault.code, failed.value.param) == (code, param)


@pytest.mark.parametrize(
    ("rest", "custom_id"),
    [
        (b'"' + b"x" * (1 << 23), None),
        (b'"' + b'\\"' * (1 << 16), None),
        (b'"' + b'\\"' * (1 << 16) + b"\\", None),
        (b'"' + b'\\"' * (1 << 16) + b'", "custom_id": "a\\"b"', 'a"b'),
    ],
    ids=["characters", "quotes", "half a quote", "behind"],
)
def test_the_head_of_a_long_line_is_searched_in_the_memory_and_time_of_reading_it(
    rest: bytes, custom_id: str | None
) -> None:
    """A planner has 1 GB and 15 minutes. Of 128 KB of quotes each would be the begin of a string to the end."""
    head = lines.Line(1, 0, 1 << 30, b'{"body": ' + rest, cut=True)
    tracemalloc.start()
    began = time.process_time()
    with nullcontext() if custom_id else pytest.raises(FaultError):
        assert lines.request(head).custom_id == custom_id
    assert time.process_time() - began < 1
    assert tracemalloc.get_traced_memory()[1] < 4 * len(head.raw)
    tracemalloc.stop()


def test_a_lone_surrogate_is_read_as_the_http_door_reads_it() -> None:
    raw = json.dumps(GOOD | {"body": {"model": "m", "input": "\ud800"}}).encode()
    body = lines.request(line(raw)).body
    assert body is not None
    assert body["input"] == "\ufffd"


@pytest.mark.parametrize(
    ("head", "custom_id"),
    [
        (b'{"custom_id":"a\\"b","body":{"input":"' + b"x" * 99, 'a"b'),
        (b'{ "body" : {"custom_id":"no", "a":["custom_id"]}, "custom_id" : "yes", "more": "' + b"x" * 99, "yes"),
        (b'{"body":{"custom_id":"no","input":"' + b"x" * 99, None),
        (b'["custom_id","no' + b"x" * 99, None),
        (b'{"a":"custom_id","b":"no' + b"x" * 99, None),
    ],
)
def test_of_a_line_that_is_too_long_the_name_is_read(head: bytes, custom_id: str | None) -> None:
    [cut] = lines.split([head], 90)
    if custom_id is None:
        with pytest.raises(FaultError, match="invalid_json_line"):
            lines.request(cut)
    else:
        assert lines.request(cut) == lines.Request(custom_id, None)


def long_line(end: bytes, more: bytes = b"") -> lines.Line:
    """One of an object whose first value is a string of many bytes, which has these before its quote."""
    [found] = lines.split([b'{"body":{"input":"' + b"x" * 50_000 + more + b'"}' + end], 1000)
    assert found.cut
    return found


@pytest.mark.parametrize(
    "more", [b"", b"\\\\", b'\\"', b'\\\\\\"', b'\\",\\"custom_id\\":\\"no', b'"},"custom_id":"no","b":{"c":"']
)
@pytest.mark.parametrize(
    ("end", "custom_id"),
    [
        (b',"custom_id":"yes","method":"POST"}', "yes"),
        (b', "more": [{"a":"]}"}], "custom_id" : "a\\"b\\\\" }  ', 'a"b\\'),
        (b',"custom_id":"","url":"/v1/embeddings"}', ""),
        (b',"custom_id":"yes","more":{"custom_id":"no"}}', "yes"),
        (b',"custom_id":"yes","a\\"custom_id":"no"}', "yes"),
        (b',"custom_id":"\\u00e9\xc3\xa9"}', "\u00e9\u00e9"),
        (b',"custom_id":"yes","a":"custom_id"}', "yes"),
    ],
)
def test_a_line_that_is_too_long_may_end_with_its_name(more: bytes, end: bytes, custom_id: str) -> None:
    """Go writes maps with their keys sorted, and so the body first."""
    line = long_line(end, more)
    assert lines.request(line) == lines.Request(custom_id, None)


@pytest.mark.parametrize(
    "end",
    [
        b"",
        b',"a":"custom_id"}',
        b',"custom_id":7}',
        b',"custom_id":{"a":"b"}}',
        b',"custom_id":["no"]}',
        b',"more":{"custom_id":"no"}}',
        b',"custom_id":"' + b"x" * (16 << 10) + b'"}',
        b',"custom_id":"behind no end"',
    ],
)
def test_a_line_that_is_too_long_has_no_name_where_its_end_says_none(end: bytes) -> None:
    with pytest.raises(FaultError, match="invalid_json_line"):
        lines.request(long_line(end))


def test_where_an_end_begins_in_a_string_nothing_of_that_is_taken_for_a_name() -> None:
    """Wherever in it: with what is cut away a quote loses what says that it ends nothing."""
    rest = b'\\\\\\"custom_id":"no"}'
    for cut in range(len(rest)):
        line = lines.Line(1, 0, 1 << 30, b'{"body":', cut=True, tail=rest[cut:])
        with pytest.raises(FaultError):
            lines.request(line)


@pytest.mark.parametrize(
    ("given", "count"), [("a", 1), (["a", "b"], 2), ([1, 2, 3], 1), ([[1], [2]], 2), ([], 1), (None, 1), (7, 1)]
)
def test_inputs_are_counted_as_they_will_be(given: object, count: int) -> None:
    assert lines.inputs({"input": given}) == count


def test_what_is_written_is_the_contracts_and_the_same_each_time() -> None:
    writer = Writer("batch_1")
    done = writer.answered(7, 'c"ü', 200, b'{"object":"list"}')
    assert done == Writer("batch_1").answered(7, 'c"ü', 200, b'{"object":"list"}')
    found = json.loads(done)
    assert done.endswith(b"\n")
    assert found.keys() == {"id", "custom_id", "response", "error"}
    name = found["id"].removeprefix("batch_req_")
    assert found["custom_id"] == 'c"ü'
    assert found["response"] == {"status_code": 200, "request_id": f"req_{name}", "body": {"object": "list"}}
    assert found["error"] is None
    other = json.loads(writer.unreached(8, "d", EXPIRED))
    assert other["id"] != found["id"]
    message = "This request could not be executed before the completion window expired."
    assert other == {
        "id": other["id"],
        "custom_id": "d",
        "response": None,
        "error": {"code": "batch_expired", "message": message},
    }


@pytest.mark.parametrize("name", [rb'"\ud800"', b'"\t"', b'"\xff"', rb'"\q"'])
def test_a_line_that_is_too_long_and_ends_with_what_is_no_text_has_no_name(name: bytes) -> None:
    whole = b'{"body":{"input":"' + b"x" * 200 + b'"},"custom_id":' + name + b"}"
    [line] = lines.split([whole], 100)
    with pytest.raises(lines.FaultError) as failed:
        lines.request(line)
    assert failed.value.fault is TOO_LONG
    assert lines.planned(line) == lines.Unreadable(None)
