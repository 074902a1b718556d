"""`make bench-soak`, small."""

from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import soak
from tests.stack.ministack import Tables


def test_requests_leave_nothing_behind(
    service_env: dict[str, str], tables: Tables, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    key = tables.create_key("acct_soak", "inference")

    seen = list(soak.looks(service_env, key, tmp_path, 400))

    grown = soak.growth(seen)
    measured(
        f"memory after {seen[-1].requests} varied requests {seen[-1].mib:.0f} MiB, {grown:+.1f} between the halves"
    )
    assert grown < 20
