"""A hung engine, in a process of its own, which it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parents[2]
PROCESS = """
import logging, sys, time
import numpy as np
from handler.engine.calls import NonFiniteVectorError
from handler.engine.pace import Pace
from handler.engine.sessions import Sessions
from handler.engine.turns import Turns
from handler.engine.watch import watch

class Session:
    prepares = False

    def run(self, outputs, feed, options=None):
        self.prepares = 555 in feed["input_ids"]
        time.sleep(3600 if 666 in feed["input_ids"] else 1 if self.prepares else 0.1)
        if 700 in feed["input_ids"]:
            raise RuntimeError("CUDA failure 700")
        return [np.full((len(feed["lengths"]), 1), np.nan if 800 in feed["input_ids"] else 1, np.float32)]

logging.basicConfig()
session = Session()
turns = Turns(Sessions(session), 1, Pace(1), 0, 2)
watch(turns, 0.5, [[int(sys.argv[1])]], lambda: session.prepares)
for call in sys.argv[2:]:
    try:
        turns.vectors([[int(token)] for token in call.split(",")], None)
    except (NonFiniteVectorError, RuntimeError):
        print("failed", flush=True)
time.sleep(0.7)
print("done")
"""

ENGINE = """
import sys, time
import numpy as np
from handler.engine.engine import Engine
from handler.engine.layer import open_layer
from handler.settings import parse

class Hung:
    def run(self, outputs, feed, options=None):
        time.sleep(1.6)
        return [np.ones((len(feed["lengths"]), 384), np.float32)]

settings = parse(dict(each.split("=") for each in sys.argv[1:]))
engine = Engine.load(open_layer(settings), settings)
engine._turns._sessions.whole = Hung()
engine.encode([[1, 2]])
print("done")
"""


FIRST = """
import logging, sys, time
import numpy as np
from handler.engine import engine, watch
from handler.engine.layer import open_layer
from handler.settings import parse

class Slow:
    def run(self, outputs, feed, options=None):
        time.sleep(float(sys.argv[1]))
        return [np.ones((len(feed["lengths"]), 384), np.float32)]

logging.basicConfig()
watch._FIRST_S = 2.5
engine.open_session = lambda *_, **__: Slow()
settings = parse(dict(each.split("=") for each in sys.argv[2:]))
engine.Engine.load(open_layer(settings), settings)
print("ready")
"""


def process(*calls: list[int], good: int = 1) -> "subprocess.CompletedProcess[str]":
    """The calls one after the other, each of texts of one token, beside a watch that has one that is `good`."""
    call = [sys.executable, "-c", PROCESS, str(good), *(",".join(map(str, each)) for each in calls)]
    return subprocess.run(call, cwd=HOUSE, capture_output=True, text=True, timeout=60, check=False)


def test_a_run_that_does_not_end_ends_the_process_while_others_go_on() -> None:
    done = process([1, 666, *range(2, 100)])
    assert done.returncode == 1
    assert "CRITICAL:handler.engine.watch:No run has brought anything for 1 s: the process ends" in done.stderr


def test_runs_that_end_may_take_as_long_together_as_they_like_and_an_idle_engine_is_no_hung_one() -> None:
    done = process([*range(1, 25)])
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_run_that_prepares_something_may_take_as_long_as_a_first() -> None:
    done = process([555], [1])
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_an_engine_whose_runs_all_fail_ends_the_process_and_one_that_fails_at_times_does_not() -> None:
    done = process(*[[700]] * 20, good=700)
    assert done.returncode == 1
    assert 2 <= done.stdout.count("failed") < 20
    done = process(*[[700], [700], [1]] * 6)
    assert (done.returncode, done.stdout) == (0, "failed\n" * 12 + "done\n"), done.stderr


def test_a_text_that_always_fails_does_not_end_the_process_however_often_it_comes_and_however_idle_that_is() -> None:
    done = process(*[[700]] * 20)
    assert (done.returncode, done.stdout) == (0, "failed\n" * 20 + "done\n"), done.stderr
    assert "all runs have failed for 1 s: a good one is tried" in done.stderr


def test_nor_does_one_of_which_there_is_no_finite_vector_but_an_engine_that_makes_none_of_anything_does() -> None:
    done = process(*[[800]] * 20)
    assert (done.returncode, done.stdout) == (0, "failed\n" * 20 + "done\n"), done.stderr
    done = process(*[[800]] * 20, good=800)
    assert done.returncode == 1


def test_an_engine_that_hangs_at_the_good_text_too_ends_the_process() -> None:
    done = process(*[[700]] * 20, good=666)
    assert done.returncode == 1
    assert "No run has brought anything" in done.stderr


@pytest.mark.parametrize(
    ("variables", "ends"),
    [
        (("MAX_RUN_SECONDS=1",), True),
        (("MAX_RUN_SECONDS=1", "AWS_LAMBDA_RUNTIME_API=127.0.0.1:9", "AWS_LAMBDA_MAX_CONCURRENCY=16"), True),
        (("MAX_RUN_SECONDS=1", "AWS_LAMBDA_RUNTIME_API=127.0.0.1:9"), False),
        (("MAX_RUN_SECONDS=0",), False),
    ],
    ids=["plain server", "Managed Instances", "Lambda, whose timeout ends one call", "never"],
)
def test_an_engine_of_several_callers_is_watched_as_the_setting_says(
    minilm: Path, variables: tuple[str, ...], *, ends: bool
) -> None:
    call = [sys.executable, "-c", ENGINE, f"MODEL_DIR={minilm}", "THREADS=1", *variables]
    done = subprocess.run(call, cwd=HOUSE, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == ((1, "") if ends else (0, "done\n")), done.stderr


@pytest.mark.parametrize(
    ("takes", "variables", "ends"),
    [
        (3600, ("MAX_RUN_SECONDS=1",), True),
        (1.5, ("MAX_RUN_SECONDS=1",), False),
        (3, ("MAX_RUN_SECONDS=4",), False),
        (3, ("MAX_RUN_SECONDS=0",), False),
    ],
    ids=["hung", "slower than those to come", "within the setting", "never"],
)
def test_a_start_whose_first_run_does_not_end_ends_the_process(
    minilm: Path, takes: float, variables: tuple[str, ...], *, ends: bool
) -> None:
    call = [sys.executable, "-c", FIRST, str(takes), f"MODEL_DIR={minilm}", "THREADS=1", *variables]
    done = subprocess.run(call, cwd=HOUSE, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == ((1, "") if ends else (0, "ready\n")), done.stderr
