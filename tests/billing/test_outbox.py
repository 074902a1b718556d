"""What is written where no store takes a record, and how it is read again."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn

import pytest

from handler.billing import outbox
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
    assert directive["Namespace"] == outbox.NAMESPACE
    assert directive["Metrics"] == [{"Name": outbox.METRIC, "Unit": "Count"}]
    assert line[outbox.METRIC] == 1
    assert {name: line[name] for name in directive["Dimensions"][0]} == {"FunctionName": "emblet-Embed"}
    assert abs(line["_aws"]["Timestamp"] / 1000 - datetime.now(UTC).timestamp()) < 60


def test_lambdas_level_filter_lets_a_line_through(lines: list[str]) -> None:
    line = json.loads(lines[0])
    assert line["level"] == "ERROR"
    assert line["timestamp"].endswith("Z")
    assert datetime.fromisoformat(line["timestamp"]).tzinfo == UTC


def in_a_message(line: str) -> str:
    """As Lambda's own JSON format has what a program logs."""
    return json.dumps({"timestamp": "2026-11-23T09:05:09Z", "level": "ERROR", "message": line, "requestId": "1-2-3"})


@pytest.mark.parametrize(
    "written",
    [
        str,
        in_a_message,
        lambda line: f"2026-11-23T09:05:09.123Z {line}",
        lambda line: f"2026-11-23T09:05:09+00:00 2026/11/23/[live]0123abcd {in_a_message(line)}",
    ],
    ids=["plain", "Lambda's JSON", "with a time before it", "as `aws logs tail` prints it"],
)
def test_records_are_read_from_a_log_however_its_lines_are_written(lines: list[str], written: Any) -> None:
    log = ["START RequestId: 1", '{"message": "other"}', *map(written, lines), "END", '{"level": "INFO"}']
    assert list(outbox.read(log)) == [RECORD, NAMED]


@pytest.mark.parametrize("cut", [-1, -40, 300])
def test_a_line_that_is_cut_is_said_and_not_passed_over(lines: list[str], cut: int) -> None:
    with pytest.raises(ValueError, match="line 2 holds a record that cannot be read"):
        list(outbox.read([lines[0], lines[1][:cut]]))
