"""Which session a run is for: one with all threads, or one with a single thread beside others like it."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from handler.engine.manifest import LayerError
from handler.engine.pace import Pace
from handler.engine.session import Session as Opened
from handler.engine.sessions import Sessions
from handler.engine.turns import Turns
from tests.engine.conftest import load, single
from tests.engine.test_engine import TEXTS, Session, vectors


def turns(whole: Session, beside: Session, at_once: int = 2) -> Turns:
    sessions = Sessions(whole, lambda: beside)
    assert single(sessions) is beside
    return Turns(sessions, 2, Pace(2), 4, at_once)


def test_a_text_alone_has_all_threads() -> None:
    whole, beside = Session(), Session()
    turns(whole, beside).vectors([[1]], None)
    assert (whole.runs, beside.runs) == ([[1]], [])


def test_runs_that_have_as_much_beside_them_have_a_thread_each() -> None:
    whole, beside = Session(seconds=0.02), Session(seconds=0.02)
    found = turns(whole, beside).vectors([[n] * 4 for n in range(8)], None)
    assert found[:, 0].tolist() == list(range(8))
    assert len(beside.runs) >= 7, "the last may find itself alone"


def test_a_long_text_beside_a_short_one_has_all_threads() -> None:
    whole, beside = Session(), Session()
    turns(whole, beside).vectors([[1] * 100, [2] * 4], None)
    assert [1] in whole.runs


def test_a_text_that_has_the_memory_for_itself_has_all_threads() -> None:
    """Whatever waits: nothing could be run beside it."""
    whole, beside = Session(), Session()
    turns(whole, beside).vectors([[n] * 1100 for n in range(6)], None)
    assert beside.runs == []


@pytest.mark.parametrize(("texts", "alone"), [(3, False), (16, True)])
def test_of_four_threads_none_is_left_idle(texts: int, alone: bool) -> None:
    whole, beside = Session(seconds=0.02), Session(seconds=0.02)
    turns(whole, beside, at_once=4).vectors([[n] * 4 for n in range(texts)], None)
    assert bool(beside.runs) is alone


def test_what_runs_elsewhere_counts_as_beside() -> None:
    whole, beside = Session(seconds=0.2), Session()
    shared = turns(whole, beside)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shared.vectors, [[1] * 4], None)
        whole.begun.wait()
        shared.vectors([[2] * 4], None)
        first.result()
    assert (whole.runs, beside.runs) == ([[1]], [[2]])


def test_it_is_opened_when_it_is_first_needed_and_nobody_waits_for_it() -> None:
    ready, asked, beside = threading.Event(), list[int](), Session()

    def open_single() -> Session:
        asked.append(1)
        ready.wait(10)
        return beside

    whole = Session(seconds=0.01)
    sessions = Sessions(whole, open_single)
    shared = Turns(sessions, 2, Pace(2), 4, 2)
    shared.vectors([[1]], None)
    assert asked == []
    shared.vectors([[n] * 4 for n in range(8)], None)
    assert len(whole.runs) == 9
    ready.set()
    assert single(sessions) is beside
    assert asked == [1]


def test_without_one_all_runs_share_the_threads(caplog: pytest.LogCaptureFixture) -> None:
    def damaged() -> Session:
        raise LayerError("packed.onnx is damaged")

    nothing: tuple[Callable[[], Opened | None] | None, ...] = (None, lambda: None, damaged)
    with caplog.at_level(logging.ERROR):
        for open_single in nothing:
            assert single(Sessions(Session(), open_single)) is None
    assert [record.getMessage() for record in caplog.records] == [
        "runs beside others share all threads: packed.onnx is damaged"
    ]


def test_a_vector_does_not_depend_on_which_session_made_it(minilm: Path) -> None:
    engine = load(minilm, threads=2)
    sessions = engine._turns._sessions
    beside = single(sessions)
    assert beside.get_session_options().intra_op_num_threads == 1
    ids = engine.tokens.encode(TEXTS)
    feed = {"input_ids": np.concatenate(ids).astype(np.int64), "lengths": np.array([*map(len, ids)])}
    one, all_threads = (each.run(["dense"], feed)[0] for each in (beside, sessions.whole))
    assert one.tobytes() == all_threads.tobytes() == vectors(engine, TEXTS).tobytes()
