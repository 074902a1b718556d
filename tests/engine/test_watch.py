"""A hung engine, in a process of its own, which it ends."""

import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).resolve().parents[2]
PROCESS = """
import logging, sys, time
import numpy as np
from handler.engine.pace import Pace
from handler.engine.sessions import Sessions
from handler.engine.turns import Turns
from handler.engine.watch import watch

class Session:
    def run(self, outputs, feed, options=None):
        time.sleep(3600 if 666 in feed["input_ids"] else 0.1)
        return [np.ones((len(feed["lengths"]), 1), np.float32)]

logging.basicConfig()
turns = Turns(Sessions(Session()), 1, Pace(1), 0, 2)
watch(turns, 0.5)
turns.vectors([[token] for token in map(int, sys.argv[1:])], None)
time.sleep(0.7)
print("done")
"""


def process(*tokens: int) -> "subprocess.CompletedProcess[str]":
    call = [sys.executable, "-c", PROCESS, *map(str, tokens)]
    return subprocess.run(call, cwd=HOUSE, capture_output=True, text=True, timeout=60, check=False)


def test_a_run_that_does_not_end_ends_the_process_while_others_go_on() -> None:
    done = process(1, 666, *range(2, 100))
    assert done.returncode == 1
    assert "CRITICAL:handler.engine.watch:A run has not ended for 1 s: the process ends" in done.stderr


def test_runs_that_end_may_take_as_long_together_as_they_like_and_an_idle_engine_is_no_hung_one() -> None:
    done = process(*range(1, 25))
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
