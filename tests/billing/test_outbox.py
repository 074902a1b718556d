"""What is written where no store takes a record, and how it is read again."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn

import pytest

from handler import logs
from handler.billing import outbox, records
from handler.billing.ledger import Attempt, Identity, Record, Work
from handler.billing.outbox import Outbox

WORK = Work("9f" * 16, "a3" * 32, datetime(2026, 11, 23, 9, 5, 7, 42, UTC), "http", attempt=Attempt(1, 60.0))
RECORD = Record(WORK, "acct_acme", "key_1", "bge-m3", 5, 1, Decimal("0.01"))
NAMED = Record(
    Work("8f" * 16, "a3" * 32, WORK.time, "http", Identity("http", "b" * 64, "c" * 64, 172800)),
    "acct_acme",
    "key_1",
    "bge-m3",
    7,
    1,
    Decimal("0.01"),
)


def broken() -> NoReturn:
    raise RuntimeError("no client can be made")


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What two records leave in the log of a function whose queue is out of reach, whatever is wrong with it."""
    kept = Outbox(broken, "nowhere", "emblet-Embed")
    for each in (RECORD, NAMED):
        kept.keep(each)
    return capsys.readouterr().out.splitlines()


def test_a_line_is_a_metric_that_cloudwatch_reads(lines: list[str]) -> None:
    line = json.loads(lines[0])
    [directive] = line["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == logs.NAMESPACE
    assert directive["Metrics"] == [{"Name": outbox.METRIC, "Unit": "Count"}]
    assert line[outbox.METRIC] == 1
    assert {name: line[name] for name in directive["Dimensions"][0]} == {"FunctionName": "emblet-Embed"}
    assert abs(line["_aws"]["Timestamp"] / 1000 - datetime.now(UTC).timestamp()) < 60


def test_lambdas_level_filter_lets_a_line_through(lines: list[str]) -> None:
    line = json.loads(lines[0])
    assert line["level"] == "ERROR"
    assert line["timestamp"].endswith("Z")
    assert datetime.fromisoformat(line["timestamp"]).tzinfo == UTC


@pytest.mark.parametrize(
    "before",
    ["", "2026-11-23T09:05:09.123Z ", "2026-11-23T09:05:09.123456789Z\t", "2026-11-23T09:05:09+00:00 "],
    ids=["plain", "aws logs, docker", "nanoseconds", "aws logs tail --format short"],
)
def test_records_are_read_from_a_log_whose_lines_have_at_most_a_time_before_them(lines: list[str], before: str) -> None:
    log = ["START RequestId: 1", '{"message": "other"}', *lines, "END", '{"level": "INFO"}']
    assert list(outbox.read(f"{before}{line}\n" for line in log)) == [(3, RECORD), (4, NAMED)]


def logged(text: str) -> str:
    """As Lambda's own JSON format has what a program logs."""
    return json.dumps({"timestamp": "2026-11-23T09:05:09Z", "level": "INFO", "message": text, "requestId": "1-2-3"})


@pytest.mark.parametrize(
    "around",
    [
        logged,
        lambda line: f"2026-11-23 09:05:09,123 INFO handler.api.frame GET '/{line}",
        lambda line: f"/{line}",
        lambda line: f"{line}' 404 in 0.7 ms",
        lambda line: f"2026-11-23T09:05:09Z 2026-11-23T09:05:09Z {line}",
        lambda line: f" {line}",
        lambda line: f"[{line}]",
        lambda line: json.dumps({"lost": json.loads(line)}),
        lambda line: json.dumps(json.loads(line) | {"_aws": {}}),
        lambda line: line.replace('"emblet"', '"another"', 1),
        lambda line: line.replace("LostRecords", "Others"),
        lambda line: json.dumps({"lost_record": json.loads(line)["lost_record"]}),
    ],
)
def test_a_record_anywhere_else_than_in_our_own_line_is_none_and_is_said(lines: list[str], around: Any) -> None:
    assert list(outbox.read([lines[0], around(lines[1]), lines[1]])) == [(1, RECORD), (2, None), (3, NAMED)]


@pytest.mark.parametrize("cut", [-1, -40, 300, 250, 100, 20])
def test_a_line_that_is_cut_is_said_and_not_passed_over_nor_is_what_comes_behind_it(lines: list[str], cut: int) -> None:
    assert list(outbox.read([lines[0], lines[1][:cut], lines[1]])) == [(1, RECORD), (2, None), (3, NAMED)]


@pytest.mark.parametrize(
    "text",
    ["lost_record", "/%7B%22lost_record%22:1%7D", "LostRecords: 2", "___lost_record__:__work_", "{", "{}", "{}{}"],
)
def test_words_alone_make_no_line_suspect(lines: list[str], text: str) -> None:
    assert list(outbox.read([text, logged(text), *lines])) == [(3, RECORD), (4, NAMED)]


def test_a_line_as_deep_as_no_parser_goes_stops_nobody(lines: list[str]) -> None:
    deep = lines[0].replace('"level"', '"deep":' + "[" * 100_000 + ',"level"')
    assert list(outbox.read([deep, *lines])) == [(1, None), (2, RECORD), (3, NAMED)]


WRONG: dict[str, list[Any]] = {
    "account": ["a#b", "*", "", 3, None, "x" * 65, "a\n"],
    "key_id": [3, "", "a#b", "x" * 129, None],
    "model": [[], "", "a\nb", '"', "x" * 129],
    "tokens": [-1, True, 1.0, "1", None, 10**15],
    "requests": [-1, True, 1.0, "1", None, 10**15],
    "price": ["NaN", "Infinity", "-1", "1e40", "1E-39", "0.1.2", 1, 0.5, None, "1" * 39],
    "work": [None, [], "work", {}],
    "unknown": [1, None],
    "work.id": [1, "", "a#r1", "x" * 129],
    "work.hash": [2, "a" * 15, "A" * 16, "g" * 16, "a" * 65],
    "work.time": ["2026-11-24T12:00:00", "9999-12-31T23:59:59+00:00", "0001-01-01", 5, None],
    "work.door": [None, "a#b"],
    "work.attempt": [
        *(1, [], False, {"count": -1, "patience_s": None}, {"count": 1, "patience_s": None, "more": 1}),
        *({"count": 1, "patience_s": patience} for patience in ("1", True, 0, -1, float("nan"), float("inf"))),
    ],
    "work.identity": [{"kind": "http", "id": "b" * 64, "asked": "c" * 64, "lifetime": 60}],  # beside an attempt
    "work.unknown": [1, None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_record_with_a_wrong_part_is_no_record(name: str, value: Any) -> None:
    fields = json.loads(records.dumps(RECORD))
    within = fields["work"] if name.startswith("work.") else fields
    within[name.removeprefix("work.")] = value
    with pytest.raises(ValueError, match="no record of the ledger"):
        records.loads(json.dumps(fields))


@pytest.mark.parametrize(
    ("part", "value"), [("id", "b"), ("asked", "B" * 64), ("kind", "a#b"), ("lifetime", -1), ("lifetime", "60")]
)
def test_a_record_with_a_wrong_identity_is_no_record(part: str, value: object) -> None:
    fields = json.loads(records.dumps(NAMED))
    fields["work"]["identity"][part] = value
    with pytest.raises(ValueError, match="no record of the ledger"):
        records.loads(json.dumps(fields))


@pytest.mark.parametrize("price", ["0", "0.01", "1E-12", "123456789.000000000001", "0E-24"])
def test_a_record_keeps_any_price_that_there_can_be(price: str) -> None:
    fields = json.loads(records.dumps(RECORD)) | {"price": price}
    assert records.loads(json.dumps(fields)).price == Decimal(price)
