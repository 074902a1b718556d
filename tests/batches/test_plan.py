"""The first pass: what a whole file fails for, and the shards that a good one is cut into."""

import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from handler.batches import lines, plan, queue
from handler.batches.duplicates import Names
from handler.batches.plan import Bounds, Plan
from handler.contract.models import Model, Models
from handler.engine import manifest
from handler.models import of_layer
from handler.settings import Settings
from tests.conftest import HOUSE


@pytest.fixture(scope="module")
def model(minilm: Path) -> Model:
    return of_layer(manifest.load(minilm), Settings())


@pytest.fixture(scope="module")
def models(model: Model) -> Models:
    return Models(model, replace(model, id="another", aliases=()))


def line(custom_id: object, text: object = "a", model: object = "all-minilm-l6-v2", **changes: object) -> bytes:
    body = {"model": model, "input": text}
    values = {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body} | changes
    return json.dumps(values).encode() + b"\n"


def read(models: Models, *raw: bytes, **bounds: int) -> Plan:
    return plan.read([b"".join(raw)], models, Bounds(**bounds))


def told(found: Plan) -> list[tuple[str, int | None, str | None]]:
    return [(fault.code, fault.line, fault.param) for fault in found.faults]


def test_a_good_file_is_counted_and_is_of_one_model_by_whatever_names(model: Model, models: Models) -> None:
    found = read(models, *(line(str(n), model=name) for n, name in enumerate(model.names)))
    assert (found.model, found.total, found.faults) == (model.id, len(model.names), [])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([], [("empty_file", None, None)]),
        ([b"\n \r\n"], [("empty_file", None, None)]),
        ([lines.BOM], [("empty_file", None, None)]),
        ([line("1"), b"nonsense\n", b"[]\n"], [("invalid_json_line", 2, None), ("invalid_json_line", 3, None)]),
        ([line("1"), line(None)], [("missing_required_parameter", 2, "custom_id")]),
        ([line("1"), b"\n", line("1"), line("1")], [("duplicate_custom_id", n, "custom_id") for n in (3, 4)]),
        ([line("1", model="none")], [("model_mismatch", 1, "body.model")]),
        ([line("1"), line("2", model="another"), line("3")], [("model_mismatch", 2, "body.model")]),
    ],
)
def test_a_bad_file_fails_with_its_lines(
    models: Models, raw: list[bytes], expected: list[tuple[str, int | None, str | None]]
) -> None:
    found = read(models, *raw)
    assert told(found) == expected


MESSAGES: list[tuple[bytes, str]] = [
    (b"nonsense", "This line is not parseable as valid JSON."),
    (b"[]", "This line must be a JSON object, but it is an array."),
    (b"[%b]" % b",".join([b"[1]"] * 200), "This line must be a JSON object, but it is an array."),
    (b"null", "This line must be a JSON object, but it is null."),
    (line(None), "Missing required parameter: 'custom_id'."),
    (line(5), "Invalid type for 'custom_id': expected a string, but got an integer instead."),
    (line("1", method=5.5), "Invalid type for 'method': expected a string, but got a number instead."),
    (line("1", url=[]), "Invalid type for 'url': expected a string, but got an array instead."),
    (line("1", body="{}"), "Invalid type for 'body': expected an object, but got a string instead."),
    (line("1", method="post"), "Each line must have the method 'POST', and this one has 'post'."),
    (
        line("1", url="{a}" * 99),
        f"Each line must have the url '/v1/embeddings', and this one has '{('{a}' * 22)[:64]}…'.",
    ),
    (line("1", model=True), "Invalid type for 'body.model': expected a string, but got a boolean instead."),
]


@pytest.mark.parametrize(("raw", "message"), MESSAGES)
def test_a_message_says_what_is_wrong_with_a_line(models: Models, raw: bytes, message: str) -> None:
    assert [fault.message for fault in read(models, raw).faults] == [message]


def test_of_a_line_that_is_too_long_to_be_known_by_its_name_the_limit_is_told(models: Models) -> None:
    [fault] = read(models, line("1"), b"x" * 200, line=150).faults
    words = "This line has more than 150 bytes (BATCH_MAX_LINE_BYTES), and neither begins nor ends with its custom_id."
    assert (fault.line, fault.message) == (2, words)


def test_a_model_that_is_not_served_is_told_with_those_that_are(models: Models) -> None:
    [short, long] = read(models, line("1", model="none"), line("2", model="n" * 99)).faults
    served = "Supported values are: 'all-minilm-l6-v2', 'another'."
    assert short.message == f"The model 'none' is not served here. {served}"
    assert long.message == f"The model '{'n' * 64}…' is not served here. {served}"


def test_a_second_model_is_told_with_the_first(models: Models) -> None:
    [fault] = read(models, line("1"), line("2", model="another")).faults
    asks = "This line asks for the model 'another', the lines before for 'all-minilm-l6-v2': a batch has one model."
    assert fault.message == asks


def test_of_a_name_that_is_there_again_the_first_line_that_has_it_is_told(models: Models) -> None:
    found = read(models, b"\n", line("1"), line("2"), line("1"), line("2"), line("1"))
    first = {fault.line: fault.message for fault in found.faults}
    assert first == {n: f"Line {before} has the same custom_id." for n, before in ((4, 2), (5, 3), (6, 2))}


def test_no_more_than_a_hundred_faults_are_told(models: Models) -> None:
    assert len(read(models, b"x\n" * 500).faults) == 100
    repeated = read(models, *[line("1")] * 500)
    assert [fault.line for fault in repeated.faults] == list(range(2, 102))


@pytest.mark.parametrize(
    ("bounds", "what"),
    [({"requests": 2}, "2 requests"), ({"inputs": 5}, "5 inputs"), ({"bytes": 300}, "300 bytes")],
)
def test_a_file_of_too_much_fails(models: Models, bounds: dict[str, int], what: str) -> None:
    raw = [line(str(n), ["a", "b"]) for n in range(3)]
    assert told(read(models, *raw[:2], **bounds)) == []
    [fault] = read(models, *raw, **bounds).faults
    assert (fault.code, fault.line) == ("too_many_tasks", None)
    assert what in fault.message


def test_a_line_that_is_too_long_is_no_fault_of_its_file(models: Models) -> None:
    found = read(models, line("1"), line("2", "x" * 1000), line("3"), line=500)
    assert (found.total, found.faults) == (3, [])
    nameless = line("1", "x" * 1000).replace(b'"custom_id": "1", ', b"")
    assert told(read(models, nameless, line=500)) == [("invalid_json_line", 1, None)]


def test_shards_have_all_lines_once_and_end_where_lines_do(models: Models) -> None:
    chance = random.Random(7)
    raw = [line(str(n), "x" * chance.randrange(300)) + b"\n" * chance.randrange(2) for n in range(500)]
    data = lines.BOM + b"".join(raw)
    found = plan.read(lines_of(data, 333), models, Bounds(shard=2000))
    ranges = [tuple(found.ranges[place : place + 3]) for place in range(0, len(found.ranges), 3)]
    assert len(ranges) == found.shards > 20
    custom_ids = []
    for start, end, count in ranges:
        part = [lines.request(each).custom_id for each in lines.split([data[start:end]], 1 << 20, start)]
        assert len(part) == count
        assert end - start <= 2000
        custom_ids += part
    assert custom_ids == [str(n) for n in range(500)]


def lines_of(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def test_a_shard_has_no_more_inputs_than_a_request_but_for_one_line(models: Models) -> None:
    found = read(models, *(line(str(n), ["a"] * 1000) for n in range(6)), line("7", ["a"] * 2048))
    assert list(found.ranges[2::3]) == [2, 2, 2, 1]


def test_a_shard_costs_no_more_than_its_time_whatever_the_length_of_its_texts(model: Model, models: Models) -> None:
    """What a text costs grows with the square of its length."""
    texts = {"short": "a" * 500, "long": "a" * 4 * model.context, "longer than is read": "a" * 40 * model.context}
    company = 1.7 * model.dimensions
    for name, text in texts.items():
        size = len(line("1", text))
        each = size * (1 + min(size / 4, model.context) / company)
        found = read(models, *(line("1", text) for _ in range(40)), shard=round(6.5 * each))
        assert {*found.ranges[2::3]} == {6, 4}, name


def test_texts_that_share_a_line_cost_what_each_does(model: Model, models: Models) -> None:
    size, text = 4 * model.context, "a" * 4 * model.context
    company = 1.7 * model.dimensions
    one = size * (1 + model.context / company)
    for texts in ([text] * 3, [text, "a", text, text]):
        found = read(models, *(line("1", texts) for _ in range(9)), shard=round(7 * one))
        assert {*found.ranges[2::3]} == {2, 1}


def test_names_on_disk_are_compared_as_those_in_memory() -> None:
    chance = random.Random(1)
    with Names() as names:
        for n in range(400_000):
            names.add(str(n), n)
        again = sorted(chance.sample(range(400_000), 50))
        for place, n in enumerate(again):
            names.add(str(n), 400_000 + place)
        assert names._folder is not None
        assert sorted(names.repeated()) == [(400_000 + place, n) for place, n in enumerate(again)]
        folder = Path(names._folder.name)
        assert folder.exists()
    assert not folder.exists()


def test_memory_does_not_grow_with_the_file(models: Models, measured: Callable[[str], None]) -> None:
    peaks = {}
    for count in (2_000, 100_000):
        tracemalloc.start()
        plan.read(map(line, map(str, range(count))), models, Bounds())
        peaks[count] = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
    measured("planner's memory: " + ", ".join(f"{mb:.1f} MB at {count:,} lines" for count, mb in peaks.items()))
    assert peaks[100_000] < peaks[2_000] + 12


def test_the_sample_event_holds_a_shard() -> None:
    [record] = json.loads((HOUSE / "events/sqs-shard.json").read_text())["Records"]
    shard = queue.shard(record["body"])
    assert (shard.account, shard.number, shard.end - shard.start) == ("acct_acme", 7, 399761)
    for text in ("", "[]", "{}", '{"account":"a"}'):
        with pytest.raises(ValueError, match="this is no shard of a batch"):
            queue.shard(text)
