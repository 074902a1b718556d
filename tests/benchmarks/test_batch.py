"""What `make bench-batch` measures is what it says, at a small size."""

import pytest

from tests.benchmarks import batch, passes


def test_as_many_lines_as_asked_for_are_planned_and_finished_within_s3s_limits() -> None:
    assert passes.planned(2000) > 0
    assert passes.finished(200_000) > 0


def test_the_peak_is_of_a_process_of_its_own() -> None:
    mib, seconds = batch.peak("finisher", 1000)
    assert 10 < mib < 300
    assert seconds < 5


def test_all_of_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    batch.compare(passes.MODEL, texts=60, rounds=2)
    batch.measure(lines=1000, embedded=100)
    told = capsys.readouterr().out
    for part in ("engine alone", "shards of a batch", "batch / engine", "1,000", "real engine, 100 lines"):
        assert part in told
