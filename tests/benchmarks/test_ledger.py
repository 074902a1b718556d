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
    assert sum(each.replays for each in result.tallies) == 16
    assert all(result.billed[each.account] > 0 for each in result.tallies)


def test_recording_costs_little_beyond_its_round_trip(tables: Tables, measured: Callable[[str], None]) -> None:
    costs = ledger.cost_ms(tables)
    measured(ledger.told(costs))
    assert costs[len(costs) // 10] < 2  # of a machine that is busy with other things, its quieter moments
