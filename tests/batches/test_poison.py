"""Lines that end whoever executes them, or fail for good, and those beside them, which do not."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from handler.batches import careful
from handler.batches import shard as executing
from handler.bulk import Answered, Bulk
from handler.engine.engine import DeadlineError, Engine
from handler.payers import Payer
from handler.store import StoreUnavailableError
from tests.batches.works import KilledError, Works, line, survive


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts that say so. What ends a process takes nothing back."""
    answer, leave = executing.Worker._answer, careful.Careful.__exit__

    def dying(self: executing.Worker, group: Any, payer: Payer, deadline: float | None) -> list[Answered]:
        if group.fate is careful.Fate.OPEN and any(asked.body["input"] == "poison" for _, asked in group.lines):
            raise KilledError
        return answer(self, group, payer, deadline)

    def leaving(self: careful.Careful, kind: Any, *rest: Any) -> None:
        if kind not in (KilledError, GeneratorExit):
            leave(self, kind, *rest)

    monkeypatch.setattr(executing.Worker, "_answer", dying)
    monkeypatch.setattr(careful.Careful, "__exit__", leaving)


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("bad", [[7], [0, 3, 9]])
def test_a_shard_that_ends_its_function_loses_no_line_but_those_that_do(works: Works, bad: list[int]) -> None:
    batch = works.submit(line(str(n), "poison" if n in bad else "the quick brown fox") for n in range(20))
    survive(works)
    done = works.ended(works.jobs.get(works.account, batch.id))
    assert done.batch.status == "completed"
    assert {*done.output} == {str(n) for n in range(20) if n not in bad}
    assert {*done.errors} == {str(n) for n in bad}
    for each in done.errors.values():
        assert each["response"]["status_code"] == 500
        assert each["response"]["body"]["error"]["type"] == "server_error"
    assert works.billed() == (done.tokens, 20 - len(bad))


@pytest.mark.parametrize("bad", [[7], [0, 19]])
def test_a_line_that_fails_for_good_without_ending_its_function_is_its_own_error(
    works: Works, bad: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = Bulk._accept

    def failing(self: Bulk, body: Any) -> Any:
        if body["input"] == "poison":
            raise RuntimeError("not to be told")
        return accept(self, body)

    monkeypatch.setattr(Bulk, "_accept", failing)
    batch = works.submit(line(str(n), "poison" if n in bad else "the quick brown fox") for n in range(20))
    survive(works)
    done = works.ended(works.jobs.get(works.account, batch.id))
    assert {*done.output} == {str(n) for n in range(20) if n not in bad}
    assert {*done.errors} == {str(n) for n in bad}
    for each in done.errors.values():
        request = each["response"]["request_id"]
        assert request in each["response"]["body"]["error"]["message"]
        assert "not to be told" not in str(each)
    assert works.billed() == (done.tokens, 20 - len(bad))


def test_an_engine_that_fails_at_every_text_is_no_lines_fault(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that has failed once fails each run, until its process ends."""
    batch = works.submit(line(str(n)) for n in range(5))
    works.plans.deliver(works.planner)
    [message] = works.shards.messages()
    message["attributes"]["ApproximateReceiveCount"] = "3"

    def failing(*_: Any) -> Any:
        raise RuntimeError

    with monkeypatch.context() as ill:
        ill.setattr(Engine, "encode", failing)
        for _ in range(3):
            assert works.executor({"Records": [message]}, None)["batchItemFailures"]
    works.until_quiet()
    works.whole(batch, map(str, range(5)))


def test_a_line_that_fails_once_is_tried_again(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = works.submit(line(str(n)) for n in range(5))
    works.plans.deliver(works.planner)
    [message] = works.shards.messages()
    message["attributes"]["ApproximateReceiveCount"] = "3"
    encode, calls = Engine.encode, iter(range(100))

    def failing(self: Engine, *args: Any) -> Any:
        if next(calls) == 2:
            raise MemoryError
        return encode(self, *args)

    monkeypatch.setattr(Engine, "encode", failing)
    assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
    works.until_quiet()
    works.whole(batch, map(str, range(5)))


@pytest.mark.parametrize("wrong", [DeadlineError, StoreUnavailableError])
def test_a_line_that_there_was_no_time_or_no_store_for_has_not_ended_its_function(
    works: Works, wrong: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line under way is taken back by then, whatever still refers to it."""
    batch = works.submit(line(str(n)) for n in range(5))
    works.plans.deliver(works.planner)
    [message] = works.shards.messages()
    message["attributes"]["ApproximateReceiveCount"] = "3"
    answer, calls = executing.Worker._answer, iter(range(100))

    def failing(self: executing.Worker, group: Any, payer: Payer, deadline: float | None) -> list[Answered]:
        if next(calls) == 2:
            raise wrong
        return answer(self, group, payer, deadline)

    monkeypatch.setattr(executing.Worker, "_answer", failing)
    gc.disable()
    try:
        assert works.executor({"Records": [message]}, None)["batchItemFailures"]
        assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
    finally:
        gc.enable()
    works.until_quiet()
    works.whole(batch, map(str, range(5)))


def test_of_the_shards_of_a_process_one_goes_line_by_line_and_alone_is_told_of_its_end(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each a line, as those of 2,048 inputs are: the shards of a process that one of them ends come again together."""
    batch = works.submit(line(str(n), "word " * 250) for n in range(3))
    works.plans.deliver(works.planner)
    first, *others = works.shards.messages()
    assert len(others) == 2
    answer, begun, told = executing.Worker._answer, threading.Event(), threading.Event()

    def hanging(self: executing.Worker, group: Any, payer: Payer, deadline: float | None) -> list[Answered]:
        begun.set()
        told.wait(30)
        return answer(self, group, payer, deadline)

    monkeypatch.setattr(executing.Worker, "_answer", hanging)
    for each in (first, *others):
        each["attributes"]["ApproximateReceiveCount"] = "3"
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


def test_a_line_that_takes_longer_than_there_is_is_its_own_error_and_the_others_are_done(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that costs as much as a shard is a shard, or the first of one: it has had all the time, twice."""
    embed = Bulk.answer

    def slow(self: Bulk, bodies: Any, payer: Payer, deadline: float | None = None) -> list[Answered]:
        if any(body["input"] == "slow" for body in bodies):
            raise DeadlineError
        return embed(self, bodies, payer, deadline)

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
        at = careful.Careful(works.rows, batch, 0, None, careful.DEATHS)
        with at:
            assert [at.begin(0), at.begin(300)] == [careful.Fate.OPEN] * 2
            at.__exit__(DeadlineError, DeadlineError(), None)


def test_the_line_of_an_execution_that_goes_on_is_not_taken_for_one_that_ended_it(works: Works) -> None:
    batch = works.submit([line("1"), line("2")])
    first, second, third = (
        careful.Careful(works.rows, batch, 0, until, careful.DEATHS) for until in (time.monotonic() + 900, None, None)
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
        at = careful.Careful(works.rows, batch, 0, None, deaths)
        at.__enter__()
        return at.begin(offset)

    assert [ends_at(each) for each in (300, *[0] * deaths)] == [careful.Fate.OPEN] * (deaths + 1)
    assert ends_at(0) is careful.Fate.DEAD
    assert ends_at(300) is careful.Fate.OPEN, "the first has ended there, and no other"


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
        at = careful.Careful(works.rows, batch, 0, None, careful.DEATHS_AMONG_MANY)
        at.__enter__()
        at.begin(0)
    works.until_quiet()
    done = works.ended(batch)
    assert (len(done.output), len(done.errors)) == ((0, 1) if is_dead else (1, 0))


@pytest.mark.usefixtures("poison")
def test_another_message_of_a_shard_goes_on_line_by_line_with_what_is_known_of_it(works: Works) -> None:
    """The hour sends anew what lies among the dead letters, and a new message has not been received before."""
    batch = works.submit(line(str(n), "poison" if n == 2 else "the quick brown fox") for n in range(4))
    works.plans.deliver(works.planner)
    [message] = works.shards.messages()
    for received in (3, 4, 1, 1):
        message["attributes"]["ApproximateReceiveCount"] = str(received)
        with pytest.raises(KilledError):
            works.executor({"Records": [message]}, None)
    assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
    works.until_quiet()
    assert {*works.ended(batch).errors} == {"2"}
