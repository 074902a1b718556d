import pytest

from handler.engine.pace import Pace


def test_nothing_is_known_before_anything_was_measured() -> None:
    pace = Pace(1024)
    assert pace.seconds(1e9) == 0
    assert pace.take(1e9, 0) is None, "and so nothing is refused"


def test_a_tokens_cost_grows_with_its_company_and_a_run_costs_something_itself() -> None:
    pace = Pace(1024)
    assert pace.cost([512, 512]) == 2 * pace.cost([512])
    assert 4 < pace.cost([8192]) / (16 * pace.cost([512])) < 5, "671 tokens a second at 512 and 152 at 8,192"
    assert pace.cost([8] * 16) > 2 * pace.cost([128])


def test_texts_that_share_a_run_share_what_it_costs() -> None:
    pace = Pace(1024, together=256)
    assert pace.cost([8] * 32) < 1.1 * pace.cost([256])
    assert pace.cost([8] * 33) == pytest.approx(pace.cost([8] * 32) + pace.cost([8])), "another run"
    assert pace.cost([200, 200]) == pytest.approx(2 * pace.cost([200])), "they do not fit together"
    assert pace.cost([512, 8]) == pytest.approx(pace.cost([512]) + pace.cost([8]))


def test_the_rate_follows_what_is_measured() -> None:
    pace = Pace(1024)
    pace.measured(1000, 1)
    assert pace.seconds(500) == pytest.approx(0.5)
    for _ in range(300):
        pace.measured(1000, 4)
    assert pace.seconds(500) == pytest.approx(2, rel=0.01)


def test_work_is_taken_while_what_is_ahead_of_it_may_be_waited_for() -> None:
    pace = Pace(1024)
    pace.measured(1000, 1)
    assert pace.take(5000, 3) is None, "however much it is itself"
    assert pace.take(2000, 3) is None
    assert pace.take(2500, 3) == pytest.approx(4.5)
    assert pace.take(2500, 5) is None
    pace.give_back(5000)
    pace.give_back(2500)
    assert pace.take(2500, 3) is None


def test_a_small_request_does_not_wait_for_all_of_a_large_one() -> None:
    """They take turns, a text each."""
    pace = Pace(1024)
    pace.measured(1000, 1)
    assert pace.take(1e6, 3) is None
    assert pace.take(10, 3) is None


def test_one_stall_of_the_process_is_no_slow_machine() -> None:
    pace = Pace(1024)
    for _ in range(20):
        pace.measured(1000, 1)
    pace.measured(1000, 3600)
    assert pace.seconds(1000) < 1.2


def test_what_is_old_is_doubtful_while_nothing_is_under_way() -> None:
    now = 100.0
    pace = Pace(1024, clock=lambda: now)
    pace.measured(1000, 1)
    assert not pace.is_doubtful
    now += 11
    assert pace.is_doubtful
    pace.take(10, 1)
    assert not pace.is_doubtful, "what is under way will be measured"
    pace.give_back(10)
    pace.measured(1000, 1)
    assert not pace.is_doubtful


def test_a_full_queue_takes_nothing_however_little_it_is() -> None:
    pace = Pace(1024, most=2)
    assert pace.take(1, 60) is None
    assert pace.take(1, 60) is None
    assert pace.take(1, 60) == 0, "nothing is measured yet, and a bound there is"
    pace.give_back(1)
    assert pace.take(1, 60) is None
