"""What `make bench-batch` measures is what it says, at a small size."""

import subprocess
import sys
from pathlib import Path

from tests.benchmarks import batch, passes
from tests.conftest import HOUSE


def test_as_many_lines_as_asked_for_are_planned_and_finished_within_s3s_limits() -> None:
    assert passes.planned(2000) > 0
    assert passes.finished(200_000) > 0


def test_the_peak_is_of_a_process_of_its_own() -> None:
    mib, seconds = batch.peak("finisher", 1000)
    assert 10 < mib < 300
    assert seconds < 5


def test_all_of_it_is_printed(minilm: Path) -> None:
    """As the command, in a process of its own: AWS's clients are a process's, and other tests' lead elsewhere."""
    few = ["--layer", minilm.name, "--texts", "60", "--rounds", "2", "--lines", "1000", "--embedded", "100"]
    call = [sys.executable, "-m", "tests.benchmarks.batch", *few]
    done = subprocess.run(call, cwd=HOUSE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for part in ("engine alone", "shards of a batch", "batch / engine", "1,000", "real engine, 100 lines"):
        assert part in done.stdout
