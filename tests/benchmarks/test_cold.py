"""`make bench-cold`, one start of each kind."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.benchmarks import cold
from tests.stack import cgroup
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


def test_the_longest_text_fits_a_small_function(
    service_env: dict[str, str], tables: Tables, measured: Callable[[str], None]
) -> None:
    key = tables.create_key("acct_long", "inference")

    text = cold.longest(service_env, key, "all-minilm-l6-v2")

    measured(f"the longest text: {text}")
    assert text.tokens == 256
    assert 0 < text.peak_mib < cold.LEAST_MB


def test_a_function_that_takes_more_memory_than_it_has_is_killed() -> None:
    code = "import sys; sys.stdin.readline(); print(len(bytearray(int(sys.argv[1]) << 20)))"
    with cgroup.limited(1, memory_mb=64) as group:
        if group is None:
            pytest.skip("this machine lets this user make no cgroup")
        ends = []
        for mib in (16, 128):
            with subprocess.Popen([sys.executable, "-c", code, str(mib)], stdin=subprocess.PIPE) as child:
                cgroup.join(group, child.pid)
                child.communicate(b"go\n")
            ends.append(child.returncode)
    assert ends == [0, -9]
