"""`make bench-ledger`, small."""

from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import ledger
from tests.stack.ministack import Tables


def test_concurrent_requests_of_eight_keys_leave_a_ledger_that_agrees_to_the_token(
    service_env: dict[str, str], tables: Tables, tmp_path: Path
) -> None:
    result = ledger.measure(service_env, tables, tmp_path, requests=80)
    assert result.differences == 0, "\n".join(ledger.table(result))
    assert sum(each.requests for each in result.tallies) == 96
    # A repetition is told as one where its first is in the table, and not yet where that waits in the queue.
    assert 16 - result.waited <= sum(each.replays for each in result.tallies) <= 16
    assert all(result.billed[each.account] > 0 for each in result.tallies)


def test_recording_is_one_round_trip_and_costs_under_two_milliseconds_beyond_it(
    tables: Tables, measured: Callable[[str], None]
) -> None:
    """By the processor's clock, of nine records in ten: by the wall's, other work on the machine counts too."""
    cost = ledger.cost(tables)
    measured(ledger.told(cost))
    assert set(cost.trips) == {1}
    assert cost.processor_ms[len(cost.processor_ms) * 9 // 10] < 2
