"""A table of many keys: runs that end before all are corrected, in little memory, of items that weigh little."""

import itertools
import json
import logging
import math
import time
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from handler import store
from handler.billing.corrections import METRIC
from handler.billing.renewal import Renewed
from tests.billing.conftest import CLOSED, Clock
from tests.stack.quotas import HOUR, NOTHING, Quota


def test_a_run_ends_at_its_deadline_says_what_is_left_and_the_next_goes_on(
    quota: Quota, clock: Clock, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    quota.count(9)
    clock.now = CLOSED
    with caplog.at_level(logging.INFO):
        assert quota.corrections()(int(CLOSED) - HOUR, time.monotonic()) == 0
        [line] = capsys.readouterr().out.splitlines()
        assert quota.corrections()(int(CLOSED) - HOUR, math.inf) == 2
    assert capsys.readouterr().out == ""
    told = json.loads(line)
    assert (told[METRIC], told["FunctionName"]) == (1, "emblet-Ledger")
    messages = [each.getMessage() for each in caplog.records if each.getMessage().startswith("correction:")]
    assert messages == [
        "correction: 0 items read, 0 months corrected, 1 items left",
        "correction: 2 items read, 2 months corrected, 0 items left",
    ]


def test_every_hour_begins_at_another_part_of_the_table(
    quota: Quota, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that runs which end after five items reach all in the end."""
    keys = [f"key_part_{number:04}" for number in range(30)]
    for key in keys:
        quota.count(1, key=key)
    quota.use(1)
    for _ in range(18):
        clock.now += HOUR
        with monkeypatch.context() as patch:
            patch.setattr("handler.billing.corrections.time", SimpleNamespace(monotonic=itertools.count().__next__))
            quota.corrections()(int(clock.now) // HOUR * HOUR - HOUR, 5, Renewed(frozenset({quota.account})))
    assert {quota.month(key) for key in keys} == {NOTHING}


def test_what_an_item_weighs_stays_under_a_write_unit(quota: Quota, clock: Clock) -> None:
    """A key that counts large requests every minute, across a month's turn, corrected by the hour: fields of ten
    minutes, of three hours and of two months. DynamoDB's rule for numbers is a byte for two digits, and one."""
    clock.now = datetime(2026, 11, 30, 21, 0, 30, tzinfo=UTC).timestamp()
    heaviest = 0
    for minute in range(5 * 60):
        clock.now += 60
        if minute % 60 == 4:
            quota.correct()
        if minute % 20 < 13:
            quota.count(300_000, at=clock.now - 1)
            heaviest = max(heaviest, _weight(quota.item(quota.owner)))
    assert heaviest < 1024


def _weight(item: dict[str, dict[str, str]]) -> int:
    return sum(
        len(name)
        + (len(value["S"]) if "S" in value else len(Decimal(value["N"]).normalize().as_tuple().digits) // 2 + 2)
        for name, value in item.items()
    )


def test_a_table_is_never_in_memory_as_a_whole(quota: Quota, clock: Clock, measured: Callable[[str], None]) -> None:
    """Of keys whose items have what ordinary operation leaves in them."""
    quota.use(1)
    for _ in range(70):
        clock.now += 60
        quota.count(1000)
    full = {name: value for name, value in quota.item().items() if name != "id"}
    _fill(quota.tables.limits, (full | {"id": {"S": f"key#many_{number}"}} for number in range(600)))
    clock.now = CLOSED
    cpu, peak = _traced(quota.correct)
    _, whole = _traced(quota.tables.counters)
    measured(f"correcting 600 months takes {cpu * 1e3:.0f} ms of CPU (traced) and {peak >> 10} KiB")
    assert quota.month("many_599") == quota.month("many_0")
    assert peak < whole / 3


def _traced(call: Callable[[], object]) -> tuple[float, int]:
    """Seconds of CPU, and bytes at the most."""
    tracemalloc.start()
    start = time.process_time()
    call()
    cpu, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return cpu, peak


def _fill(table: str, items: Iterator[dict[str, Any]]) -> None:
    client: Any = store.dynamodb()
    while some := list(itertools.islice(items, 25)):
        client.batch_write_item(RequestItems={table: [{"PutRequest": {"Item": each}} for each in some]})
