"""What `make bench-batch` measures is what it says, at a small size."""

from tests.benchmarks import batch


def test_as_many_lines_as_asked_for_are_planned_and_joined_within_s3s_limits() -> None:
    batch.planned(2000)
    batch.joined(200_000)


def test_the_peak_is_of_a_process_of_its_own() -> None:
    mib, seconds = batch.peak("join", 1000)
    assert 10 < mib < 200
    assert seconds < 5
