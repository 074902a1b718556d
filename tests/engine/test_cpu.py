import os
from pathlib import Path

import pytest

from handler.engine import cpu
from handler.settings import Settings


@pytest.fixture(autouse=True)
def six_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))


@pytest.mark.parametrize(("memory", "share"), [(1769, 1.0), (3538, 2.0), (885, 0.5), (10240, 5.79), (20000, 6.0)])
def test_lambdas_share_follows_its_memory(memory: int, share: float, tmp_path: Path) -> None:
    found = cpu.share(Settings(aws_lambda_function_memory_size=memory), tmp_path)
    assert found == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(("line", "share"), [("150000 100000", 1.5), ("max 100000", 6.0), ("900000 100000", 6.0)])
def test_a_containers_share_is_its_cgroup_v2_quota(line: str, share: float, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(line + "\n")
    assert cpu.share(Settings(), tmp_path) == share


@pytest.mark.parametrize(("quota", "share"), [("50000", 0.5), ("-1", 6.0)])
def test_a_containers_share_is_its_cgroup_v1_quota(quota: str, share: float, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cpu.share(Settings(), tmp_path) == share


def test_without_a_quota_it_is_what_is_visible(tmp_path: Path) -> None:
    assert cpu.share(Settings(), tmp_path) == 6.0
