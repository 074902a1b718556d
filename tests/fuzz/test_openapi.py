"""schemathesis over `/openapi.json`: what the document admits is accepted, what it does not is refused, and every
answer is one that it describes."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fuzz.test_garbage import EXPLORED
from tests.stack.server import PlainServer

HERE = Path(__file__).parent
ORDINARY = 40  # examples of an operation, beside those that its limits give


@dataclass(frozen=True)
class Role:
    """A key, the paths that are asked with it ("": all), how many operations they have of how many, and the fewest
    requests."""

    key: str
    paths: str
    operations: int
    of: int
    requests: int


@pytest.fixture(params=["inference", "admin"])
def role(request: pytest.FixtureRequest) -> Role:
    """Reports are for admin keys, embeddings for the others."""
    key: str = request.getfixturevalue(f"{request.param}_key")
    roles = {"inference": Role(key, "", 14, 14, 500), "admin": Role(key, "organization|v1/usage", 3, 14, 100)}
    return roles[request.param]


def test_schemathesis_finds_nothing(plain: PlainServer, role: Role, tmp_path: Path) -> None:
    explore(plain, role, tmp_path)


def explore(server: PlainServer, role: Role, folder: Path) -> None:
    """Have schemathesis ask a server all that its document tells of. `folder`: where it may write."""
    call = [str(Path(sys.executable).with_name("st")), "--config-file", str(HERE / "schemathesis.toml")]
    call += ["run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {role.key}", "--checks=all"]
    call += ["--continue-on-failure", "--no-color", f"--max-examples={EXPLORED // 50 or ORDINARY}"]
    call += [] if EXPLORED else ["--generation-deterministic"]
    call += ["--include-path-regex", role.paths] if role.paths else []
    env = os.environ | {"SCHEMATHESIS_HOOKS": str(HERE / "beyond_schema.py")}

    done = subprocess.run(call, cwd=folder, env=env, capture_output=True, text=True)

    print(done.stdout)
    assert done.returncode == 0, done.stderr
    # Without the path of the document itself, which it has asked for already.
    assert re.search(rf"Selected: {role.operations}/{role.of}\n +Tested: {role.operations}\n", done.stdout)
    made = re.search(r"(\d+) generated", done.stdout)
    assert made is not None
    assert int(made[1]) >= (role.requests // 3 if EXPLORED else role.requests)
