"""Messages of which one fails: it alone comes again, or is answered with its error, whatever the others are."""

import json
import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from handler.bulk import Bulk
from handler.engine.engine import DeadlineError, Engine
from handler.engine.pace import Pace
from handler.events.messages import Messages
from tests.batches.post import Context, Post
from tests.batches.works import MODEL, KilledError
from tests.stack.queues import Queue

SECRET = "what only its sender knows"


def again(message: dict[str, Any], received: int) -> dict[str, Any]:
    """A message that is delivered for so manieth a time."""
    return message | {"attributes": message["attributes"] | {"ApproximateReceiveCount": str(received)}}


def statuses(post: Post) -> list[int]:
    return sorted(each["response"]["status_code"] for each in post.objects())


def test_what_cannot_be_read_comes_again_alone_and_the_log_names_it(
    post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Bulk._accept

    def failing(self: Bulk, body: Any) -> Any:
        if body["input"] == SECRET:
            raise RuntimeError(SECRET)
        return real(self, body)

    monkeypatch.setattr(Bulk, "_accept", failing)
    bad = post.message(SECRET)
    with caplog.at_level(logging.ERROR):
        assert post.take(post.message("one"), bad, post.message("two")) == [bad["messageId"]]
    assert (statuses(post), len(post.records())) == ([200, 200], 2)
    assert f"message {bad['messageId']} comes again: RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_what_the_engine_fails_at_comes_again_alone(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Engine.encode

    def failing(self: Engine, ids: Any, *rest: Any) -> Any:
        if [*self.tokens.encode([SECRET])[0]] in [[*each] for each in ids]:
            raise RuntimeError
        return real(self, ids, *rest)

    monkeypatch.setattr(Engine, "encode", failing)
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
    real = Engine.encode

    def slow(self: Engine, ids: Any, deadline: float, *rest: Any) -> Any:
        if len(ids) > 500:
            time.sleep(max(0.0, deadline - time.monotonic()))
            raise DeadlineError
        return real(self, ids, deadline, *rest)

    monkeypatch.setattr(Engine, "encode", slow)
    monkeypatch.setattr(Pace, "seconds", lambda *_: 0.0)
    good, large = post.message("good"), post.message(["word"] * 600)
    names = [good["messageId"], large["messageId"]]
    for received in (1, 2):
        assert post.take(again(good, received), again(large, received), context=Context(0.5)) == names
    assert post.take(again(good, 3), again(large, 3), context=Context(0.5)) == []
    assert (statuses(post), len(post.records())) == ([200, 504], 1)


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


def test_what_ends_the_process_is_named_before(
    post: Post, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def ending(*_: Any) -> Any:
        raise KilledError

    monkeypatch.setattr(Engine, "encode", ending)
    poison = post.message(SECRET)
    with pytest.raises(KilledError):
        post.take(post.message(), again(poison, 7))
    assert caplog.messages == [f"message {poison['messageId']} is tried alone, received 7 times"]
