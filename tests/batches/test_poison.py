"""Lines that end whoever executes them, or fail for good, and those beside them, which do not."""

import gc
import json
import threading
from typing import Any

import pytest

from handler.batches import careful
from handler.batches import shard as executing
from handler.batches.takings import Takings
from handler.bulk import Answered, Bulk
from handler.engine.engine import DeadlineError, Engine
from handler.store import StoreUnavailableError
from tests.batches.works import KilledError, Works, line, survive


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts that say so. What ends a process takes nothing back."""
    answer, leave = executing.Worker._answer, careful.Careful.__exit__

    def dying(self: executing.Worker, group: Any, takings: Takings, deadline: float | None) -> list[Answered]:
        if group.fate is careful.Fate.OPEN and any(asked.body["input"] == "poison" for _, asked in group.lines):
            raise KilledError
        return answer(self, group, takings, deadline)

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
    [message] = works.received(3)

    def failing(*_: Any) -> Any:
        raise RuntimeError

    with monkeypatch.context() as ill:
        ill.setattr(Engine, "encode", failing)
        for _ in range(3):
            assert works.executor({"Records": [message]}, None)["batchItemFailures"]
    works.until_quiet()
    works.whole(batch, map(str, range(5)))


def test_a_line_since_which_the_engine_fails_at_every_text_is_dead_in_the_end(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the process as good as ended: another begins with an engine that is well."""
    batch = works.submit(line(str(n), "poison" if n == 2 else "the quick brown fox") for n in range(5))
    [message] = works.received(3)
    [poison] = works.service.bulk._engine.tokens.encode(["poison"])
    encode, ill = Engine.encode, threading.Event()

    def failing(self: Engine, ids: Any, *args: Any) -> Any:
        if ill.is_set() or any([*each] == [*poison] for each in ids):
            ill.set()
            raise RuntimeError("CUDA failure 700")
        return encode(self, ids, *args)

    monkeypatch.setattr(Engine, "encode", failing)
    for received in range(3, 3 + careful.DEATHS_AMONG_MANY):  # as on any host but Lambda
        message["attributes"]["ApproximateReceiveCount"] = str(received)
        for _ in range(2):  # while it is ill, no line is blamed
            assert works.executor({"Records": [message]}, None)["batchItemFailures"]
        ill.clear()
    works.until_quiet()
    done = works.ended(batch)
    assert {*done.output} == {"0", "1", "3", "4"}
    assert done.errors["2"]["response"]["status_code"] == 500


@pytest.mark.usefixtures("failing_once")
def test_a_line_that_fails_once_is_tried_again(works: Works) -> None:
    batch = works.submit(line(str(n)) for n in range(5))
    [message] = works.received(3)
    assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
    works.until_quiet()
    works.whole(batch, map(str, range(5)))


@pytest.mark.parametrize("wrong", [DeadlineError, StoreUnavailableError])
def test_a_line_that_there_was_no_time_or_no_store_for_has_not_ended_its_function(
    works: Works, wrong: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line under way is taken back by then, whatever still refers to it."""
    batch = works.submit(line(str(n)) for n in range(5))
    [message] = works.received(3)
    answer, calls = executing.Worker._answer, iter(range(100))

    def failing(self: executing.Worker, group: Any, takings: Takings, deadline: float | None) -> list[Answered]:
        if next(calls) == 2:
            raise wrong
        return answer(self, group, takings, deadline)

    monkeypatch.setattr(executing.Worker, "_answer", failing)
    gc.disable()
    try:
        assert works.executor({"Records": [message]}, None)["batchItemFailures"]
        assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
    finally:
        gc.enable()
    works.until_quiet()
    works.whole(batch, map(str, range(5)))


@pytest.mark.usefixtures("poison")
def test_another_message_of_a_shard_goes_on_line_by_line_with_what_is_known_of_it(
    works: Works, caplog: pytest.LogCaptureFixture
) -> None:
    """The hour sends anew what lies among the dead letters, and a new message has not been received before."""
    batch = works.submit(line(str(n), "poison" if n == 2 else "the quick brown fox") for n in range(4))
    [message] = works.received(3)
    for received in (3, 4, 1, 1):
        message["attributes"]["ApproximateReceiveCount"] = str(received)
        with pytest.raises(KilledError):
            works.executor({"Records": [message]}, None)
        number = json.loads(message["body"])["number"]
        assert f"shard {number} of batch {batch.id} goes line by line, received {received} times" == caplog.messages[-1]
    assert works.executor({"Records": [message]}, None) == {"batchItemFailures": []}
    works.until_quiet()
    assert {*works.ended(batch).errors} == {"2"}
