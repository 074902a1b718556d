"""Messages of which one fails: it alone comes again, or is answered with its error, whatever the others are."""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from handler import store
from handler.batches import careful
from handler.batches.careful import Careful
from handler.batches.rows import Rows
from handler.bulk import Bulk
from handler.contract import errors
from handler.contract.limits import Limits
from handler.engine.engine import DeadlineError, Engine, NonFiniteVectorError
from handler.engine.pace import Pace
from handler.events.messages import Messages
from handler.service import Service
from handler.settings import Settings
from handler.store import StoreUnavailableError
from tests.batches.post import Context, Post
from tests.batches.works import MODEL, KilledError
from tests.stack.ministack import Tables
from tests.stack.queues import Queue

SECRET = "what only its sender knows"


def again(message: dict[str, Any], received: int) -> dict[str, Any]:
    """A message that is delivered for so manieth a time."""
    return message | {"attributes": message["attributes"] | {"ApproximateReceiveCount": str(received)}}


def statuses(post: Post) -> list[int]:
    return sorted(each["response"]["status_code"] for each in post.objects())


def failing_at(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], bool]) -> None:
    """What is read of a body fails at texts of which this is true."""
    real = Bulk._accept

    def failing(self: Bulk, body: Any) -> Any:
        if fails(body["input"]):
            raise RuntimeError(SECRET)
        return real(self, body)

    monkeypatch.setattr(Bulk, "_accept", failing)


def encoding_the_secret(monkeypatch: pytest.MonkeyPatch, raises: type[BaseException]) -> None:
    """The engine raises where the secret is among its texts."""
    real = Engine.encode

    def encoding(self: Engine, ids: Any, *rest: Any) -> Any:
        if [*self.tokens.encode([SECRET])[0]] in [[*each] for each in ids]:
            raise raises
        return real(self, ids, *rest)

    monkeypatch.setattr(Engine, "encode", encoding)


def test_what_cannot_be_read_comes_again_alone_and_the_log_names_it(
    post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing_at(monkeypatch, lambda text: text == SECRET)
    bad = post.message(SECRET)
    with caplog.at_level(logging.ERROR):
        assert post.take(post.message("one"), bad, post.message("two")) == [bad["messageId"]]
    assert (statuses(post), len(post.records())) == ([200, 200], 2)
    assert f"message {bad['messageId']} comes again: RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_what_the_engine_fails_at_comes_again_alone(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding_the_secret(monkeypatch, RuntimeError)
    bad = post.message(SECRET)
    assert post.take(post.message("one"), bad, post.message("two")) == [bad["messageId"]]
    assert (statuses(post), len(post.records())) == ([200, 200], 2)


def test_what_by_the_measured_rate_takes_longer_than_a_call_has_is_answered_so(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pace, "seconds", lambda _, cost: cost / 10)
    monkeypatch.setattr(Pace, "is_doubtful", False)
    large = post.message([f"a text {n}" for n in range(100)], custom_id="large")
    assert post.take(post.message("one"), large, post.message("two"), context=Context(15)) == []
    [refused] = [each for each in post.objects() if each["custom_id"] == "large"]
    assert refused["response"]["status_code"] == 504
    assert "could not be embedded within 12 seconds" in refused["response"]["body"]["error"]["message"]
    assert len(post.records()) == 2


def test_what_takes_longer_than_expected_keeps_the_others_waiting_twice_and_is_answered_so(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, clock, slept = Engine.encode, time.monotonic, [0.0]

    def slow(self: Engine, ids: Any, deadline: float, *rest: Any) -> Any:
        if len(ids) > 500:
            slept.append(deadline - time.monotonic())
            raise DeadlineError
        return real(self, ids, deadline, *rest)

    monkeypatch.setattr(time, "monotonic", lambda: clock() + sum(slept))
    monkeypatch.setattr(Engine, "encode", slow)
    monkeypatch.setattr(Pace, "seconds", lambda *_: 0.0)
    monkeypatch.setattr(Settings, "has_many_callers", False)
    good, large = post.message("good"), post.message(["word"] * 600)
    names = [good["messageId"], large["messageId"]]
    for received in (1, 2):
        assert post.take(again(good, received), again(large, received), context=Context(15)) == names
    assert post.take(again(good, 3), again(large, 3), context=Context(15)) == []
    assert (statuses(post), len(post.records())) == ([200, 504], 1)

    monkeypatch.setattr(Settings, "has_many_callers", True)
    other = post.message(["word"] * 600)
    assert post.take(again(other, 4), context=Context(15)) == [other["messageId"]], "others may have taken its time"


def test_answers_that_are_held_at_once_are_bounded(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[Any] = []
    encode, send = Engine.encode, Messages._send

    def encoding(self: Engine, ids: Any, *rest: Any) -> Any:
        did.append(len(ids))
        return encode(self, ids, *rest)

    def sending(self: Messages, *args: Any) -> None:
        did.append("sent")
        send(self, *args)

    monkeypatch.setattr(Engine, "encode", encoding)
    monkeypatch.setattr(Messages, "_send", sending)
    assert post.take(*(post.message([f"text {n}"] * 900) for n in range(3)), post.message()) == []
    assert did == [1800, "sent", "sent", 901, "sent", "sent"]


def test_a_message_that_always_fails_is_given_up_and_the_log_says_why_by_its_id(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue(hidden_s=0)
    queue.redrive_to(post.dead, after=3)
    gone = replace(post.door._config, results_bucket="no-such-bucket")
    post.door._config = gone
    queue.send(json.dumps({"account": post.account, "body": {"model": MODEL, "input": "a"}}))
    for _ in range(3):
        assert queue.deliver(post.door) == 0
    assert queue.receive() == []
    [dead] = post.dead.receive()
    assert f"message {dead['messageId']} comes again: NoSuchBucket on no-such-bucket" in caplog.messages
    assert post.records() == []


def test_messages_that_the_deadline_has_overtaken_come_again(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "seconds", lambda *_: 0.0)  # it is taken to be quick, and is not
    many = [post.message(f"a text {n}") for n in range(3)]
    assert post.take(*many, context=Context(0)) == [each["messageId"] for each in many]
    assert post.records() == []


# Alone


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> type[BaseException]:
    """The secret ends the process, which takes nothing back."""
    leave = Careful.__exit__

    def leaving(self: Careful, kind: Any, *rest: Any) -> None:
        if kind is not KilledError:
            leave(self, kind, *rest)

    encoding_the_secret(monkeypatch, KilledError)
    monkeypatch.setattr(Careful, "__exit__", leaving)
    monkeypatch.setattr(careful, "_ENDS_S", -1000.0)  # whatever has ended is known to have
    return KilledError


def test_what_ends_the_process_is_named_before(
    post: Post, poison: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    bad = post.message(SECRET)
    with pytest.raises(poison):
        post.take(post.message(), again(bad, 7))
    assert caplog.messages == [f"message {bad['messageId']} is tried alone, received 7 times"]


@pytest.mark.parametrize("deaths", [careful.DEATHS, careful.DEATHS_AMONG_MANY])
def test_what_has_ended_the_process_alone_is_answered_so_and_not_tried_again(
    post: Post, poison: type[BaseException], deaths: int
) -> None:
    post.door._deaths = deaths
    bad, good = post.message(SECRET, custom_id="bad"), post.message("good")
    for received in range(1, 3 + deaths):
        with pytest.raises(poison):
            post.take(again(good, received), again(bad, received))
    assert post.take(again(bad, 3 + deaths), again(good, 3 + deaths)) == []
    [answer] = [each for each in post.objects() if each["custom_id"] == "bad"]
    assert answer["response"]["status_code"] == 500
    assert answer["response"]["request_id"] in answer["response"]["body"]["error"]["message"]
    assert (statuses(post), len(post.records())) == ([200, 500], 1)


def test_another_that_is_alone_meanwhile_is_not_blamed(post: Post, poison: type[BaseException]) -> None:
    bad, good = post.message(SECRET), post.message("good")
    for received in (3, 4):
        with pytest.raises(poison):
            post.take(again(bad, received), again(good, received))
    assert post.take(again(good, 5)) == []
    assert statuses(post) == [200]


def test_a_message_that_another_execution_is_at_comes_again(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    message = post.message()
    place = careful.of_message(message["messageId"], time.time())
    at = Careful(Rows(store.dynamodb, post.door._config.jobs_table), place, time.monotonic() + 60, careful.DEATHS)
    with at:
        at.begin(0)
        assert post.take(again(message, 3)) == [message["messageId"]]
        assert f"message {message['messageId']} comes again: another execution is at it" in caplog.messages
    assert post.take(again(message, 4)) == []
    assert statuses(post) == [200]


def test_what_the_engine_fails_at_alone_is_answered_so(
    post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing_at(monkeypatch, lambda text: text == SECRET)
    bad = post.message(SECRET, custom_id="bad")
    for received in (1, 2):
        assert post.take(again(bad, received)) == [bad["messageId"]]
    assert post.objects() == []
    assert post.take(again(bad, 3), post.message("good")) == []
    assert (statuses(post), len(post.records())) == ([200, 500], 1)
    assert f"message {bad['messageId']} is answered with an error for good" in caplog.messages
    assert SECRET not in caplog.text


def test_a_minutes_limit_is_no_failure_of_the_engine(
    post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limited = errors.REQUESTS_PER_MINUTE.error(model=MODEL, duration="1s", limit=1, used=1, requested=1)
    monkeypatch.setattr(Bulk, "_refused", lambda *_, by_minute=False, **__: limited if by_minute else None)
    message = post.message()
    assert post.take(again(message, 3)) == [message["messageId"]]
    assert post.objects() == []
    assert "has failed alone" not in caplog.text


def test_the_limits_of_a_key_are_taken_once_for_both_attempts(
    post: Post, tables: Tables, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = service.keys.find(tables.create_key(post.account, "inference", Limits(requests_per_minute=1)))
    assert key is not None
    encoding_the_secret(monkeypatch, RuntimeError)
    assert post.take(again(post.message(SECRET, key_id=key.key_id), 3)) == []
    assert (statuses(post), post.records()) == ([500], [])


def test_what_is_embedded_is_answered_though_it_cannot_be_kept_that_it_is(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailableError("Jobs")

    monkeypatch.setattr(careful, "_PATIENCE_S", 0)
    monkeypatch.setattr(Careful, "_leave", away)
    assert post.take(again(post.message(), 3)) == []
    assert (statuses(post), len(post.records())) == ([200], 1)


def test_while_the_engine_fails_at_everything_no_message_is_blamed(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_at(monkeypatch, lambda _: True)
    message = post.message()
    for received in range(3, 9):
        assert post.take(again(message, received)) == [message["messageId"]]
    monkeypatch.undo()
    assert post.take(again(message, 9)) == []
    assert statuses(post) == [200]


def test_while_the_engine_makes_nothing_finite_what_is_alone_comes_again(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise NonFiniteVectorError(0)

    monkeypatch.setattr(Engine, "encode", failing)
    message = post.message()
    assert post.take(again(message, 3)) == [message["messageId"]]
    assert post.objects() == []


def test_what_makes_the_engine_ill_is_answered_so_once_that_is_sure(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it the engine fails at good texts too, until its process is another."""
    ill = threading.Event()

    def fails(text: str) -> bool:
        if text == SECRET:
            ill.set()
        return ill.is_set()

    failing_at(monkeypatch, fails)
    post.door._deaths = careful.DEATHS
    bad = post.message(SECRET)
    for received in (3, 4):
        assert post.take(again(bad, received)) == [bad["messageId"]]
        ill.clear()
    assert post.take(again(bad, 5), post.message("good")) == []
    assert statuses(post) == [200, 500]
