"""When runs end that are under way, and what seeing to it takes."""

import math
import threading
import time
from contextlib import ExitStack

import pytest

from handler.engine.session import RunOptions
from handler.engine.stops import Stops


def ended(options: RunOptions, within_s: float = 5) -> bool:
    end = time.monotonic() + within_s
    while not options.terminate and time.monotonic() < end:
        time.sleep(0.01)
    return options.terminate


def test_each_ends_at_its_own_deadline_whatever_the_order_they_come_in() -> None:
    stops, start = Stops(), time.monotonic()
    with (
        stops.until(start + 600) as late,
        stops.until(start + 0.4) as second,
        stops.until(math.inf) as never,
        stops.until(start + 0.2) as first,
        stops.until(start - 1) as past,
    ):
        assert ended(past)
        assert ended(first)
        assert time.monotonic() >= start + 0.2
        assert not second.terminate or time.monotonic() >= start + 0.4
        assert ended(second)
        assert time.monotonic() >= start + 0.4
        assert not late.terminate
        assert not never.terminate
        stops.end_all()
        assert late.terminate
        assert never.terminate


def test_nothing_is_kept_of_a_call_that_has_ended() -> None:
    stops = Stops()
    with stops.until(time.monotonic() + 600) as timed, stops.until(math.inf) as untimed:
        pass
    stops.end_all()
    assert not timed.terminate
    assert not untimed.terminate


def test_one_thread_sees_to_the_deadlines_of_all_and_ends_after_the_last() -> None:
    stops, end = Stops(), time.monotonic() + 2

    def seeing() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "deadlines"]

    before = seeing()
    with stops.until(math.inf):
        assert {*seeing()} <= {*before}, "there is nothing to see to"
    with ExitStack() as stack:
        for each in range(20):  # each sooner than those before
            stack.enter_context(stops.until(end - each / 100))
        [thread] = {*seeing()} - {*before}
    for each in range(20):
        with stops.until(end + each / 100):
            assert {*seeing()} - {*before} == {thread}
    thread.join(10)
    assert not thread.is_alive()
    with stops.until(time.monotonic() + 0.1) as another:
        assert ended(another)


def test_what_begins_after_the_end_of_all_is_ended_at_once() -> None:
    stops = Stops()
    stops.end_all()
    with stops.until(math.inf) as late:
        assert late.terminate


def test_where_no_thread_can_be_started_the_next_who_asks_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stops = Stops()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        with pytest.raises(RuntimeError), stops.until(time.monotonic() + 0.1):
            pass
    with stops.until(time.monotonic() + 0.1) as options:
        assert ended(options)


def test_an_end_that_no_clock_will_see_keeps_no_other_from_being_seen() -> None:
    stops = Stops()
    with stops.until(1e18), stops.until(time.monotonic() + 0.2) as soon:
        time.sleep(0.1)
        assert ended(soon)
    with stops.until(time.monotonic() + 0.1) as another:
        assert ended(another)
