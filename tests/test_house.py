"""The plan of the house, kept: who may import whom, and what never comes along at run time."""

import json
import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).resolve().parent.parent
BUILD_TIME = {"torch", "transformers", "onnx", "blingfire", "safetensors", "model_layer"}


def test_imports_go_down_the_house() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=HOUSE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_a_started_function_has_imported_nothing_of_the_builders_or_the_operators(service_env: dict[str, str]) -> None:
    code = "import sys, json, handler.entry; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HOUSE, env=service_env, capture_output=True, text=True, check=True
    )
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert {"onnxruntime", "tokenizers", "mangum", "fastapi", "boto3"} <= imported
    assert not imported & (BUILD_TIME | {"yaml", "pytest", "moto", "httpx", "uvicorn"})
    assert "handler.billing.keys" in imported
    assert "handler.billing.keytable" not in imported


def test_every_table_of_versions_is_hash_checked_and_holds_no_address() -> None:
    for lock in [*HOUSE.glob("requirements*.lock"), *HOUSE.glob("tests/*/locks/*.lock")]:
        text = lock.read_text()
        pins = [line for line in text.splitlines() if "==" in line and not line.startswith(" ")]
        assert pins
        assert all(line.endswith("\\") for line in pins), lock
        assert "://" not in text, lock
