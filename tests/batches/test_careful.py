"""What is known of a shard that goes line by line: which lines end its executions, and which had all their time."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from handler.batches import careful
from handler.batches import shard as executing
from handler.batches.bucket import Bucket
from handler.batches.takings import Takings
from handler.bulk import Answered, Bulk
from handler.engine.engine import DeadlineError
from handler.events import messages
from handler.payers import Payer
from tests.batches.post import Context, Post
from tests.batches.works import Works, line, survive


def test_of_the_shards_of_a_process_one_goes_line_by_line_and_alone_is_told_of_its_end(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each a line, as those of 2,048 inputs are: the shards of a process that one of them ends come again together."""
    batch = works.submit(line(str(n), "word " * 250) for n in range(3))
    first, *others = works.received(3)
    assert len(others) == 2
    answer, begun, told = executing.Worker._answer, threading.Event(), threading.Event()

    def hanging(self: executing.Worker, group: Any, takings: Takings, deadline: float | None) -> list[Answered]:
        begun.set()
        told.wait(30)
        return answer(self, group, takings, deadline)

    monkeypatch.setattr(executing.Worker, "_answer", hanging)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(works.executor, {"Records": [first]}, None)
        try:
            assert begun.wait(30)
            soon = SimpleNamespace(get_remaining_time_in_millis=lambda: 500)
            failed = [works.executor({"Records": [each]}, soon)["batchItemFailures"] for each in others]
            rows = [works.rows.get(f"careful#{batch.id}", f"{number:08}") for number in range(3)]
        finally:
            told.set()
        assert under_way.result() == {"batchItemFailures": []}
    assert failed == [[{"itemIdentifier": each["messageId"]}] for each in others], "they come again"
    assert sum(row is not None for row in rows) == 1, "no line of theirs was under way"
    works.until_quiet()
    works.whole(batch, map(str, range(3)))


def test_a_message_is_not_tried_alone_beside_a_shard_that_would_be_blamed_for_its_end(
    works: Works, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both come again as long after as before, and would meet each time."""
    batch = works.submit([line("1")])
    [message] = works.received(3)
    suspect, good, refused = post.message("once more"), post.message("good"), post.message(body=None)
    for each in (suspect, refused):
        each["attributes"]["ApproximateReceiveCount"] = "3"
    answer, met = executing.Worker._answer, list[list[str]]()

    def beside(self: executing.Worker, *args: Any) -> list[Answered]:
        met.append(post.take(suspect, good, refused))
        return answer(self, *args)

    monkeypatch.setattr(executing.Worker, "_answer", beside)
    monkeypatch.setattr(messages, "_WAITS_S", 0.1)
    assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
    assert met == [[suspect["messageId"]]]
    assert post.take(suspect) == []
    works.until_quiet()
    assert {*works.ended(batch).output} == {"1"}


def test_a_line_that_takes_longer_than_there_is_is_its_own_error_and_the_others_are_done(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that costs as much as a shard is a shard, or the first of one: it has had all the time, twice."""
    embed = Bulk.answer

    def slow(self: Bulk, bodies: Any, payer: Payer, deadline: float | None = None, *more: Any) -> list[Answered]:
        if any(body["input"] == "slow" for body in bodies):
            raise DeadlineError
        return embed(self, bodies, payer, deadline, *more)

    monkeypatch.setattr(Bulk, "answer", slow)
    works.deploy(works.config)
    batch = works.submit(line(str(n), "slow" if n == 0 else "the quick brown fox") for n in range(20))
    survive(works)
    done = works.ended(batch)
    assert {*done.output} == {str(n) for n in range(1, 20)}
    assert done.errors["0"]["response"]["status_code"] == 504
    assert done.errors["0"]["response"]["body"]["error"]["code"] == "deadline_exceeded"
    assert works.billed() == (done.tokens, 19)


def test_a_line_for_which_others_left_no_time_is_not_late(works: Works) -> None:
    batch = works.submit([line("1"), line("2")])
    for _ in range(3):
        at = careful.Careful(works.rows, careful.of_shard(batch, 0), None, careful.DEATHS)
        with at:
            assert [at.begin(0), at.begin(300)] == [careful.Fate.OPEN] * 2
            at.__exit__(DeadlineError, DeadlineError(), None)


def test_a_line_for_which_a_wait_left_no_time_is_not_late(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another shard of the process goes line by line before this one, and nothing of its file is open meanwhile."""
    batch = works.submit(line(str(n), "word " * 250) for n in range(2))
    first, second = works.received(3)
    answer, embed, read = executing.Worker._answer, Bulk.answer, Bucket.read
    begun, told, opened = threading.Event(), threading.Event(), list[float]()

    def hanging(self: executing.Worker, *args: Any) -> list[Answered]:
        begun.set()
        told.wait(30)
        return answer(self, *args)

    def slow(self: Bulk, bodies: Any, payer: Payer, deadline: float | None = None, *more: Any) -> list[Answered]:
        if deadline is not None and deadline - time.monotonic() < 3:
            raise DeadlineError
        return embed(self, bodies, payer, deadline, *more)

    def reading(self: Bucket, *args: Any) -> Any:
        opened.append(time.monotonic())
        return read(self, *args)

    monkeypatch.setattr(executing.Worker, "_answer", hanging)
    monkeypatch.setattr(Bulk, "answer", slow)
    monkeypatch.setattr(Bucket, "read", reading)
    works.deploy(works.config)
    place = careful.of_shard(batch, json.loads(second["body"])["number"])
    at = careful.Careful(works.rows, place, None, careful.DEATHS)
    at.__enter__()
    at.begin(json.loads(second["body"])["start"])
    at.__exit__(DeadlineError, DeadlineError(), None)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(works.executor, {"Records": [first]}, None)
        assert begun.wait(30)
        waits = time.monotonic()
        threading.Timer(0.5, told.set).start()
        assert works.executor({"Records": [second]}, Context(4))["batchItemFailures"]
        assert under_way.result() == {"batchItemFailures": []}
    assert opened[-1] - waits > 0.4
    works.until_quiet()
    works.whole(batch, map(str, range(2)))


def test_the_line_of_an_execution_that_goes_on_is_not_taken_for_one_that_ended_it(works: Works) -> None:
    batch = works.submit([line("1"), line("2")])
    place = careful.of_shard(batch, 0)
    first, second, third = (
        careful.Careful(works.rows, place, until, careful.DEATHS) for until in (time.monotonic() + 900, None, None)
    )
    with second:  # both have begun with the shard, and none with a line
        with first:
            assert first.begin(0) is careful.Fate.OPEN
            with pytest.raises(careful.BusyError):
                second.begin(0)
            with pytest.raises(careful.BusyError):
                third.__enter__()
            assert first.begin(300) is careful.Fate.OPEN
        assert second.begin(0) is careful.Fate.OPEN
        with third:  # what lasted no longer than this has ended
            assert third.begin(300) is careful.Fate.OPEN
            with pytest.raises(careful.BusyError):
                second.begin(300)


@pytest.mark.parametrize("deaths", [careful.DEATHS, careful.DEATHS_AMONG_MANY])
def test_a_line_is_dead_once_so_many_executions_have_ended_at_it(works: Works, deaths: int) -> None:
    """The first may have been ended by its host, or in turns by another call of its process."""
    batch = works.submit([line("1"), line("2")])

    def ends_at(offset: int) -> careful.Fate:
        at = careful.Careful(works.rows, careful.of_shard(batch, 0), None, deaths)
        at.__enter__()
        return at.begin(offset)

    assert [ends_at(each) for each in (300, *[0] * deaths)] == [careful.Fate.OPEN] * (deaths + 1)
    assert ends_at(0) is careful.Fate.DEAD
    assert ends_at(300) is careful.Fate.OPEN, "the first has ended there, and no other"


@pytest.mark.parametrize("deaths", [careful.DEATHS, careful.DEATHS_AMONG_MANY])
def test_a_line_is_late_once_as_many_had_no_time_for_it(works: Works, deaths: int) -> None:
    """Where a process has many calls, others may have taken it."""
    batch = works.submit([line("1"), line("2")])

    def has_no_time() -> careful.Fate:
        with (
            suppress(DeadlineError),
            careful.Careful(works.rows, careful.of_shard(batch, 0), None, deaths) as at,
        ):
            fate = at.begin(0)
            raise DeadlineError
        return fate

    assert [has_no_time() for _ in range(deaths)] == [careful.Fate.OPEN] * deaths
    assert has_no_time() is careful.Fate.LATE


@pytest.mark.parametrize(
    ("host", "is_dead"),
    [
        ({"aws_lambda_runtime_api": "", "aws_lambda_max_concurrency": 0}, False),
        ({"aws_lambda_runtime_api": "local", "aws_lambda_max_concurrency": 64}, False),
        ({"aws_lambda_runtime_api": "local", "aws_lambda_max_concurrency": 0}, True),
    ],
    ids=["a server", "instances", "a call at a time"],
)
def test_where_a_process_has_many_calls_it_takes_more_deaths(works: Works, host: dict[str, Any], is_dead: bool) -> None:
    works.deploy(replace(works.config, **host))
    batch = works.submit([line("1")])
    for _ in range(3):
        at = careful.Careful(works.rows, careful.of_shard(batch, 0), None, careful.DEATHS_AMONG_MANY)
        at.__enter__()
        at.begin(0)
    works.until_quiet()
    done = works.ended(batch)
    assert (len(done.output), len(done.errors)) == ((0, 1) if is_dead else (1, 0))
