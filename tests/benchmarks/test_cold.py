"""`make bench-cold`, one start."""

from collections.abc import Callable

from tests.benchmarks import cold
from tests.stack.ministack import Tables


def test_each_step_of_a_start_is_told(
    service_env: dict[str, str], tables: Tables, measured: Callable[[str], None]
) -> None:
    key = tables.create_key("acct_cold", "inference")

    start = cold.run(service_env, key, "all-minilm-l6-v2", 3538)

    *_, row = cold.table([(3538, "warm", cold.median([start]))])
    measured(f"a start: {row}")
    assert start.total > start.init > start.loading > max(start.tokenizer, start.session) > 0
    assert start.anonymous > 20
