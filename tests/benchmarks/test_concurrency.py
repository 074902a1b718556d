"""`make bench-concurrency`, small."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks import concurrency
from tests.stack import managed

MODEL = "all-minilm-l6-v2"


def test_callers_that_share_an_engine_are_held_against_one_at_a_time(
    service_env: dict[str, str], inference_key: str, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    found = concurrency.plain(service_env, MODEL, inference_key, tmp_path, [1, 16], 1, 0.5)
    for line in concurrency.table(concurrency.ordered(found), {}):
        measured(line)
    assert {(callers, name) for callers, name in found} == {
        (callers, name) for callers in (1, 16) for name in ("one at a time", "shared runs")
    }
    assert all(load.rate > 1 for loads in found.values() for load in loads)


def test_what_one_caller_loses_is_asked_text_by_text(
    service_env: dict[str, str], inference_key: str, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    told = concurrency.single(service_env, MODEL, inference_key, tmp_path, 1)
    measured(told)
    found = re.search(r"([\d.]+) of the time, with 95 % certainty ([\d.]+) to ([\d.]+)$", told)
    assert found, told
    ratio, low, high = map(float, found.groups())
    assert 0.3 < low <= ratio <= high < 3


def test_a_median_is_told_with_how_exactly_it_is_known() -> None:
    draw = random.Random(1)
    found = [concurrency.middle([draw.gauss(1, 0.1) for _ in range(200)]) for _ in range(1000)]
    assert 930 <= sum(low <= 1 <= high for low, _, high in found) <= 980
    assert concurrency.middle([3.0, 1.0, 2.0]) == (1.0, 2.0, 3.0)


@pytest.mark.skipif(not managed.possible(), reason="only root makes the namespace that this mode needs")
def test_one_process_of_threads_has_the_memory_of_one(
    service_env: dict[str, str], inference_key: str, measured: Callable[[str], None]
) -> None:
    found, memory = concurrency.instances(service_env, MODEL, inference_key, 3, 1, 0.5)
    for line in concurrency.table(concurrency.ordered(found), memory):
        measured(line)
    assert memory["one process"] < memory["a process for each call"] * 0.7
