"""Whose texts run next. Turns are counted, and no second is: runs end when the test lets them."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from handler.engine.calls import Call, Run
from handler.engine.engine import DeadlineError
from handler.engine.pace import Pace
from handler.engine.sessions import Sessions
from handler.engine.targets import CUDA
from handler.engine.turns import Turns
from tests.engine.conftest import queued

TOGETHER = 256
Wait = Callable[[int], None]


class Held:
    """A session whose runs end when they are let go, or stopped; `runs` are the first tokens of each run's texts, as
    they begin, and `threads` whose they are."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []
        self.threads: list[str] = []
        self._begun, self._go = threading.Condition(), [threading.Event() for _ in range(5000)]
        self._ended = 0

    def run(self, _outputs: list[str], feed: Any, options: Any = None, /) -> list[npt.NDArray[np.float32]]:
        starts = feed["lengths"].cumsum() - feed["lengths"]
        with self._begun:
            number = len(self.runs)
            self.runs.append(feed["input_ids"][starts].tolist())
            self.threads.append(threading.current_thread().name)
            self._begun.notify_all()
        while not self._go[number].wait(0.01):
            if options.terminate:
                raise RuntimeError("terminate flag is set")
        return [np.ones((len(starts), 1), np.float32)]

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()  # whatever has failed: nobody waits for ever

    def wait_for(self, runs: int) -> None:
        """Until so many have begun."""
        with self._begun:
            assert self._begun.wait_for(lambda: len(self.runs) >= runs, 10), self.runs

    def end(self, number: int) -> None:
        """The run of this number."""
        self._go[number].set()

    def end_one(self) -> None:
        """The oldest."""
        self.end(self._ended)
        self._ended += 1

    def end_all(self, but: int = -1) -> None:
        for number in range(len(self._go)):
            if number != but:
                self.end(number)


@pytest.fixture
def session() -> Held:
    return Held()


def turns(session: Held, at_once: int = 1) -> Turns:
    return Turns(Sessions(session), 1, Pace(1, TOGETHER), TOGETHER, at_once)


LARGE, SMALL = 7, 5


def ask(pool: ThreadPoolExecutor, shared: Turns, token: int, texts: int, length: int, **more: Any) -> Future[Any]:
    return pool.submit(shared.vectors, [[token] * length] * texts, None, **more)


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("length", [8, 250, 8192])
def test_beside_2048_inputs_a_single_one_is_in_the_next_run(session: Held, length: int, at_once: int) -> None:
    shared = turns(session, at_once)
    with ThreadPoolExecutor(2) as pool, session:
        large = ask(pool, shared, LARGE, 2048, length)
        begun = 1 if length > 2048 else at_once  # texts that need most of the memory run one at a time
        for number in range(6):
            session.wait_for(begun + number)
            session.end_one()
        session.wait_for(begun + 6)
        before = len(session.runs)
        small = ask(pool, shared, SMALL, 1, 8)
        queued(shared, 2)
        session.end_one()
        session.wait_for(before + 1)
        assert SMALL in session.runs[before]
        session.end_all()
        small.result(10)
        large.result(10)


@pytest.mark.parametrize("length", [3, 100, 8192])
def test_on_a_gpu_it_is_so_too_and_no_run_is_larger_than_is_said(session: Held, length: int) -> None:
    shared = Turns(Sessions(session), 1, Pace(1, CUDA.together, target=CUDA), CUDA.together, 1, CUDA.texts)
    with ThreadPoolExecutor(2) as pool, session:
        large = ask(pool, shared, LARGE, 2048, length)
        session.wait_for(1)
        small = ask(pool, shared, SMALL, 1, 8)
        queued(shared, 2)
        session.end_one()
        session.wait_for(2)
        assert SMALL in session.runs[1]
        session.end_all()
        small.result(10)
        large.result(10)
    assert len(session.runs[0]) == min(CUDA.together // length, CUDA.texts)


def test_however_many_single_ones_come_a_large_call_has_its_turn(session: Held) -> None:
    shared = turns(session)
    with ThreadPoolExecutor(4) as pool, session:
        calls = [ask(pool, shared, LARGE, 3, 250)]
        session.wait_for(1)
        calls.append(ask(pool, shared, 1, 1, 250))
        queued(shared, 2)
        session.end_one()
        session.wait_for(2)
        calls.append(ask(pool, shared, 2, 1, 250))
        queued(shared, 2)
        session.end_one()
        session.wait_for(3)
        session.end_all()
        for each in calls:
            each.result(10)
    assert session.runs == [[LARGE], [1], [LARGE], [2], [LARGE]]


def test_many_callers_share_the_run_that_begins_when_one_ends(session: Held) -> None:
    shared = turns(session)
    with ThreadPoolExecutor(33) as pool, session:
        calls = [ask(pool, shared, 0, 1, 8)]
        session.wait_for(1)
        calls += [ask(pool, shared, number, 1, 8) for number in range(1, 33)]
        queued(shared, 32)
        session.end_all()
        for each in calls:
            each.result(10)
    assert [sorted(run) for run in session.runs] == [[0], list(range(1, 33))]


def test_a_caller_whose_text_is_run_gets_it_and_runs_no_others_meanwhile(session: Held) -> None:
    shared = turns(session, at_once=2)
    with ThreadPoolExecutor(5) as pool, session:
        calls = []
        for number in (1, 2):  # both slots
            calls.append(ask(pool, shared, number, 1, 1000))
            session.wait_for(number)
        for number in (3, 4):  # which will share a run of one of them
            calls.append(ask(pool, shared, number, 1, 8))
            queued(shared, number - 2)
        session.end(0)
        session.wait_for(3)
        calls.append(ask(pool, shared, 5, 1, 1000))
        queued(shared, 1)
        session.end(1)
        session.wait_for(4)
        session.end(2)
        assert [calls[number].result(10).shape for number in (2, 3)] == [(1, 1), (1, 1)]
        assert not calls[4].done()
        session.end_all()
        calls[4].result(10)
    assert session.runs == [[1], [2], [3, 4], [5]]


def test_who_has_gone_while_waiting_for_a_turn_leaves_when_a_run_ends(session: Held) -> None:
    shared, gone = turns(session), threading.Event()
    with ThreadPoolExecutor(2) as pool, session:
        large = ask(pool, shared, LARGE, 100, 250)
        session.wait_for(1)
        left = ask(pool, shared, SMALL, 50, 250, gone=gone)
        queued(shared, 2)
        gone.set()
        session.end_one()
        with pytest.raises(DeadlineError):
            left.result(10)
        session.end_all()
        large.result(10)
    assert sum(run.count(SMALL) for run in session.runs) <= 1


def test_when_the_process_ends_who_waits_is_told_and_nothing_more_is_run(session: Held) -> None:
    shared = turns(session)
    with ThreadPoolExecutor(2) as pool, session:
        running = ask(pool, shared, LARGE, 2, 250)
        session.wait_for(1)
        waiting = ask(pool, shared, SMALL, 1, 250)
        queued(shared, 2)
        shared.close()
        with pytest.raises(DeadlineError):
            waiting.result(10)
        session.end_all()
        with pytest.raises(DeadlineError):
            running.result(10)
        with pytest.raises(DeadlineError):
            shared.vectors([[1]], None)
    assert len(session.runs) == 1


def test_where_two_runs_of_a_call_fail_at_once_what_its_own_has_raised_is_kept(session: Held) -> None:
    poor, company = (Call([[1] * 8], np.empty((1, 1), np.float32), math.inf, None) for _ in range(2))
    error = MemoryError()
    Run([(poor, 0)], 8, session).fail(error)
    Run([(poor, 0), (company, 0)], 16, session).fail(MemoryError("of both"))
    assert poor.failed is error
    assert company.failed is None, "it is tried by itself"
    assert not company.goes_with(poor)


Helped = tuple[Turns, Callable[[float], Future[Any]], Callable[[], None]]


@pytest.fixture
def helped(session: Held) -> Iterator[Helped]:
    """Turns; what asks for a text that a helper of another call then runs; and what lets that other call end."""
    shared, tries = turns(session, 2), 50
    with ThreadPoolExecutor(2, "caller") as pool, session:
        other = pool.submit(shared.vectors, [[1] * 200] * (tries + 3), None)
        session.wait_for(2)

        def run(seconds: float) -> Future[Any]:
            """Within so many from now."""
            for number in range(2, 2 + 2 * tries, 2):
                asked = pool.submit(shared.vectors, [[9] * 1000], time.monotonic() + seconds)
                queued(shared, 2)
                session.end(max(number for number, name in enumerate(session.threads) if name.startswith("run")))
                session.wait_for(number + 1)
                assert session.runs[number] == [9]
                if session.threads[number].startswith("run"):
                    return asked
                session.end(number)  # its own thread was quicker
                asked.result(10)
                session.wait_for(number + 2)
            raise AssertionError(session.threads)

        def leave() -> None:
            session.end_all(but=len(session.runs) - 1)
            other.result(10)

        yield shared, run, leave


def test_a_run_is_stopped_at_its_own_deadline_whosever_thread_it_is_in(helped: Helped) -> None:
    shared, run, leave = helped
    asked = run(2)
    leave()
    with pytest.raises(DeadlineError):
        asked.result(10)
    idle(shared)


def test_a_run_is_stopped_with_the_process_whosever_thread_it_is_in(helped: Helped) -> None:
    shared, run, leave = helped
    asked = run(math.inf)
    leave()
    shared.close()
    with pytest.raises(DeadlineError):
        asked.result(10)
    idle(shared)


def idle(shared: Turns) -> None:
    """Until nothing is run."""
    for _ in range(500):
        if not shared._running:
            return
        time.sleep(0.01)
    raise AssertionError(shared._running)
