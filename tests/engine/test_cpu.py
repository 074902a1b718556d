import os
import subprocess
import sys
from pathlib import Path

import pytest

from handler.engine import cpu
from handler.settings import Settings
from tests.model_layer.small import HOUSE
from tests.stack import cgroup


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


@pytest.mark.parametrize("inner", ["70000 100000", "max 100000"])
def test_of_a_cgroup_and_those_around_it_the_least_counts(inner: str, tmp_path: Path) -> None:
    inside = tmp_path / "system.slice/emblet.service"
    inside.mkdir(parents=True)
    (tmp_path / "system.slice/cpu.max").write_text("150000 100000\n")
    (inside / "cpu.max").write_text(inner)
    (tmp_path / "own").write_text("5:memory:/elsewhere\n0::/system.slice/emblet.service\n")
    share = cpu.share(Settings(), tmp_path, tmp_path / "own")
    assert share == (0.7 if inner.startswith("7") else 1.5)


def test_a_hosts_path_that_a_container_cannot_see_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "own").write_text("4:cpu,cpuacct:/docker/0123456789\n")
    assert cpu.share(Settings(), tmp_path, tmp_path / "own") == 2.0


@pytest.mark.parametrize("cpus", [0.5, 1.0])
def test_a_real_quota_is_found(cpus: float) -> None:
    code = (
        "import sys; sys.stdin.readline(); from handler.engine.cpu import share; from handler.settings import Settings;"
        "print(share(Settings()))"
    )
    with cgroup.limited(cpus) as group:
        if group is None:
            pytest.skip("this machine lets this user make no cgroup")
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=HOUSE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            cgroup.join(group, child.pid)
            found, _ = child.communicate("go\n")
    assert float(found) == cpus


def test_on_managed_instances_memory_says_nothing_of_the_share(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert cpu.share(Settings(aws_lambda_function_memory_size=4096, aws_lambda_max_concurrency=16), tmp_path) == 4.0
