import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handler import settings

HOUSE = Path(__file__).resolve().parent.parent


def test_an_empty_environment_gives_the_defaults() -> None:
    assert settings.parse({}) == settings.Settings()
    assert settings.parse({"THREADS": "", "KEYS_TABLE": " "}) == settings.Settings()


def test_values_are_typed() -> None:
    parsed = settings.parse({"THREADS": "3", "MODEL_DIR": "/m", "EMPTY_INPUT": "reject"})
    assert (parsed.threads, parsed.model_dir, parsed.empty_input) == (3, "/m", "reject")


def test_every_wrong_variable_is_named_with_what_it_may_be() -> None:
    with pytest.raises(settings.SettingError) as caught:
        settings.parse({"THREADS": "two", "MODEL_CHECK": "none", "PORT": "-1"})
    message = str(caught.value)
    assert "THREADS=two: expected a whole number" in message
    assert "MODEL_CHECK=none: expected one of sizes, hashes" in message
    assert "PORT=-1" in message


@pytest.mark.parametrize(("seconds", "fine"), [("0", True), ("3600", True), ("3601", False), ("99999", False)])
def test_a_retry_is_looked_for_in_an_hour_at_most(seconds: str, *, fine: bool) -> None:
    if fine:
        assert settings.parse({"RETRY_WINDOW": seconds}).retry_window == int(seconds)
    else:
        with pytest.raises(settings.SettingError, match=f"RETRY_WINDOW={seconds}: expected 3600 at most"):
            settings.parse({"RETRY_WINDOW": seconds})


def test_a_required_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(settings.SettingError, match="USAGE_TABLE: not set"):
        settings.required(settings.parse({"KEYS_TABLE": "k"}), "keys_table", "usage_table")


def test_the_module_lists_every_variable_with_its_documentation() -> None:
    done = subprocess.run([sys.executable, "-m", "handler.settings"], cwd=HOUSE, capture_output=True, text=True)
    for name, field in settings.Settings.__dataclass_fields__.items():
        assert f"{name.upper()}" in done.stdout
        assert field.metadata["about"] in done.stdout


def test_whoever_reads_only_the_head_of_that_list_sees_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    call = [sys.executable, "-m", "handler.settings"]
    done = subprocess.run(call, cwd=HOUSE, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_no_other_room_reads_the_environment() -> None:
    # local.py and ministack.py are no part of the function: they make the environment that the function then reads.
    readers = {
        path.relative_to(HOUSE).as_posix()
        for path in (HOUSE / "handler").rglob("*.py")
        if any(
            isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and isinstance(node.ctx, ast.Load)
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    # session.py sets one variable that onnxruntime reads at its import, and reads none. runtime.py must reach the
    # Runtime API to report that settings are wrong.
    others = {"handler/local.py", "handler/ministack.py", "handler/engine/session.py", "handler/runtime.py"}
    assert readers == {"handler/settings.py"} | others
