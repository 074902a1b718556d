"""schemathesis over `/openapi.json`: what the document admits is accepted, what it does not is refused, and every
answer is one that it describes."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.test_garbage import EXPLORED
from tests.stack.server import PlainServer

HERE = Path(__file__).parent
ORDINARY = 40  # examples of an operation, beside those that its limits give


def test_schemathesis_finds_nothing(plain: PlainServer, inference_key: str, tmp_path: Path) -> None:
    call = [str(Path(sys.executable).with_name("st")), "--config-file", str(HERE / "schemathesis.toml")]
    call += ["run", f"{plain.url}/openapi.json", "--header", f"Authorization: Bearer {inference_key}", "--checks=all"]
    call += ["--continue-on-failure", "--no-color", f"--max-examples={EXPLORED // 50 or ORDINARY}"]
    call += [] if EXPLORED else ["--generation-deterministic"]
    env = os.environ | {"SCHEMATHESIS_HOOKS": str(HERE / "beyond_schema.py")}

    done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True)

    print(done.stdout)
    assert done.returncode == 0, done.stderr
    # Without the path of the document itself, which it has asked for already.
    assert re.search(r"Selected: 14/14\n +Tested: 14\n", done.stdout)
    made = re.search(r"(\d+) generated", done.stdout)
    assert made is not None
    assert int(made[1]) >= (200 if EXPLORED else 500)
