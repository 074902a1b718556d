"""Messages that ask for embeddings: answered where they say, billed once, and each for itself."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.exceptions import ClientError

from handler import store
from handler.contract import errors
from handler.contract.limits import Limits
from handler.engine.pace import Pace
from handler.engine.turns import Turns
from handler.events.messages import Messages
from handler.payers import Payers
from handler.service import Service
from handler.store import StoreUnavailableError
from tests.batches.post import Context, Post, record
from tests.conftest import HOUSE
from tests.stack.ministack import Tables
from tests.stack.queues import Queue


def test_a_message_is_answered_in_the_bucket_and_billed_at_the_online_price(post: Post, service: Service) -> None:
    sent = post.message(id="order-77/part-3", custom_id="c-1")
    assert post.take(sent) == []
    [answer] = post.objects()
    assert answer.keys() == {"id", "custom_id", "response", "error"}
    assert (answer["id"], answer["custom_id"], answer["error"]) == ("order-77/part-3", "c-1", None)
    response = answer["response"]
    assert response["status_code"] == 200
    assert response["body"]["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    engine = service.bulk._engine
    [vector] = engine.encode(engine.tokens.encode(["the quick brown fox"]))
    given = base64.b64decode(response["body"]["data"][0]["embedding"])
    assert given == np.ascontiguousarray(vector, "<f4").tobytes()
    [billed] = post.records()
    assert (billed["tokens"]["N"], billed["requests"]["N"], billed["door"]["S"]) == ("4", "1", "message")
    assert Decimal(billed["usd_per_mtok"]["N"]) == Decimal("0.01")


def test_the_sample_event_is_answered(post: Post) -> None:
    event = json.loads((HOUSE / "events/sqs.json").read_text())
    for each in event["Records"]:
        body = json.loads(each["body"])
        each["body"] = json.dumps(body | {"account": post.account})
    assert post.take(*event["Records"]) == []
    assert {each["custom_id"] for each in post.objects()} == {"c-1", "c-2"}


def test_all_messages_of_an_event_are_given_to_the_engine_together(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, real = list[int](), Turns.vectors

    def counted(self: Turns, texts: Any, *rest: Any) -> Any:
        calls.append(len(texts))
        return real(self, texts, *rest)

    monkeypatch.setattr(Turns, "vectors", counted)
    others = [post.message(f"text {n}", account=f"{post.account}{n}") for n in range(4)]
    assert post.take(*others, post.message(["one", "two"])) == []
    assert calls == [6]


BAD: dict[str, Callable[[Post], dict[str, Any]]] = {
    "model_not_found": lambda post: post.message(body={"model": "none", "input": "a"}),
    "context_length_exceeded": lambda post: post.message("word " * 300),
    "missing_required_parameter": lambda post: post.message(body=None),
    "invalid_type": lambda post: post.message(body="text"),
    "invalid_api_key": lambda post: post.message(key_id="key_none"),
    "empty_array": lambda post: post.message([]),
}


@pytest.mark.parametrize("code", BAD)
def test_what_can_never_succeed_is_answered_with_its_error_and_not_repeated(post: Post, code: str) -> None:
    good = post.message()
    assert post.take(BAD[code](post), good) == []
    found = {each["response"]["status_code"]: each["response"]["body"] for each in post.objects()}
    [status] = [status for status in found if status != 200]
    assert (found[status]["error"]["code"], status // 100) == (code, 4)
    assert len(post.records()) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("no JSON", "it is not the JSON of an object"),
        ("[]", "it is not the JSON of an object"),
        ('{"body":{}}', "it names no account"),
        ('{"account":"a#b","body":{}}', "it names no account"),
        ('{"account":"*","body":{}}', "it names no account"),
        ('{"account":"a","to":{"s3":"s3://elsewhere/"},"body":{}}', "RESULT_DESTINATIONS"),
        ('{"account":"a","to":{"queue":"https://sqs/other"},"body":{}}', "RESULT_DESTINATIONS"),
        ('{"account":"a","to":"s3","body":{}}', "RESULT_DESTINATIONS"),
    ],
)
def test_who_cannot_be_answered_lies_with_the_reason_among_the_dead(post: Post, body: str, reason: str) -> None:
    assert post.take(record(body), post.message()) == []
    client: Any = boto3.client("sqs")
    [dead] = client.receive_message(QueueUrl=post.dead.url, MessageAttributeNames=["All"])["Messages"]
    assert dead["Body"] == body
    assert reason in dead["MessageAttributes"]["reason"]["StringValue"]
    assert len(post.records()) == 1


@pytest.mark.parametrize(("prefix", "is_dead"), [("a" * 900, False), ("a" * 1000, True), ("x/../y", True)])
def test_a_prefix_that_no_object_can_have_is_told_before_anything_is_embedded(
    post: Post, prefix: str, is_dead: bool
) -> None:
    assert post.take(post.message(to={"s3": f"s3://{post.bucket}/elsewhere/{prefix}/"})) == []
    client: Any = boto3.client("sqs")
    dead = client.receive_message(QueueUrl=post.dead.url, MessageAttributeNames=["All"]).get("Messages", [])
    reasons = [each["MessageAttributes"]["reason"]["StringValue"] for each in dead]
    assert reasons == ["it is to be answered below a prefix that no object of S3 can have"] * is_dead
    assert len(post.records()) == (not is_dead)


def test_of_what_is_too_long_beside_its_reason_the_head_lies_among_the_dead(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both queues take as many bytes, and a reason counts as well; MiniStack's take any."""
    client: Any = boto3.client("sqs")

    def send(*, MessageBody: str, MessageAttributes: Any, **told: Any) -> None:  # noqa: N803  (botocore's)
        if len(MessageBody) + len("reasonString") + len(MessageAttributes["reason"]["StringValue"]) > 1 << 20:
            raise ClientError({"Error": {"Code": "InvalidParameterValue"}}, "SendMessage")
        client.send_message(MessageBody=MessageBody, MessageAttributes=MessageAttributes, **told)

    monkeypatch.setattr(store, "queues", lambda: SimpleNamespace(send_message=send))
    body = '{"account": "' + "x" * ((1 << 20) - 13)
    assert post.take(record(body)) == []
    [dead] = client.receive_message(QueueUrl=post.dead.url, MessageAttributeNames=["All"])["Messages"]
    assert body.startswith(dead["Body"])
    assert len(dead["Body"]) == 1 << 19
    assert "JSON" in dead["MessageAttributes"]["reason"]["StringValue"]


def test_without_a_queue_for_the_dead_it_comes_again_until_its_own_gives_it_up(post: Post) -> None:
    post.door._config = replace(post.door._config, dead_messages_queue="")
    bad = record("no JSON")
    assert post.take(bad, post.message()) == [bad["messageId"]]


def test_an_answer_goes_where_the_message_says(post: Post) -> None:
    there = {"s3": f"s3://{post.bucket}/elsewhere/{post.account}/"}
    assert post.take(post.message(to=there), post.message(to={"queue": post.answers.url}, custom_id="q")) == []
    assert post.objects() == []
    assert len(post.objects(f"elsewhere/{post.account}/")) == 1
    [message] = post.answers.messages()
    assert json.loads(message["body"])["custom_id"] == "q"


def test_an_answer_that_is_too_large_for_a_queue_is_an_object_that_the_queue_tells_of(post: Post) -> None:
    sent = post.message(["a text"] * 600, to={"queue": post.answers.url}, custom_id="q")
    assert post.take(sent) == []
    [message] = post.answers.messages()
    told = json.loads(message["body"])
    [answer] = post.objects()
    assert told == {"custom_id": "q", "result": {"s3": told["result"]["s3"]}}
    assert told["result"]["s3"].startswith(f"s3://{post.bucket}/out/{post.account}/messages/")
    assert len(answer["response"]["body"]["data"]) == 600


def test_an_answer_that_the_queue_itself_does_not_take_is_such_an_object_too(post: Post) -> None:
    client: Any = boto3.client("sqs")
    client.set_queue_attributes(QueueUrl=post.answers.url, Attributes={"MaximumMessageSize": "1024"})
    assert post.take(post.message(to={"queue": post.answers.url}, custom_id="q")) == []
    [message] = post.answers.messages()
    assert json.loads(message["body"]).keys() == {"custom_id", "result"}
    assert (len(post.objects()), len(post.records())) == (1, 1)


def test_a_queue_that_keeps_the_order_of_messages_gets_each_answer_once(post: Post) -> None:
    ordered = Queue(fifo=True)
    post.door._config = replace(post.door._config, result_destinations=ordered.url)
    sent = [post.message(f"text {n}", to={"queue": ordered.url}, custom_id=str(n)) for n in range(3)]
    large = post.message(["a text"] * 600, to={"queue": ordered.url}, custom_id="large")
    for _ in range(2):
        assert post.take(*sent, large) == []
    told = [json.loads(each["body"]) for each in ordered.messages()]
    assert [each["custom_id"] for each in told] == ["0", "1", "2", "large"]
    assert told[3].keys() == {"custom_id", "result"}
    assert len(post.records()) == 4


def test_such_a_queue_gets_each_answer_to_what_is_sent_again(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    ordered = Queue(fifo=True)
    post.door._config = replace(post.door._config, result_destinations=ordered.url)
    again = [post.message(id="order-77", custom_id=name, to={"queue": ordered.url}) for name in ("a", "a", "b")]
    with monkeypatch.context() as away:
        away.setattr(Payers, "of_message", lambda *_: (_ for _ in ()).throw(errors.WRONG_KEY.error()))
        assert post.take(again[0]) == []
    assert post.take(*again[1:]) == []
    told = [json.loads(each["body"]) for each in ordered.messages()]
    answers = [(each["custom_id"], each["response"]["status_code"]) for each in told]
    assert answers == [("a", 401), ("a", 200), ("b", 200)]
    assert len(post.records()) == 1


def test_a_keys_limits_hold_a_minutes_later_and_a_quota_for_good(
    post: Post, tables: Tables, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(service._counters, "_clock", lambda: now)

    def key_id(limits: Limits) -> str:
        clear = tables.create_key(post.account, "inference", limits)
        found = service.keys.find(clear)
        assert found is not None
        return found.key_id

    slow, poor = key_id(Limits(requests_per_minute=1)), key_id(Limits(tokens_per_month=5))
    one, two = (post.message(f"text {n}", key_id=slow) for n in range(2))
    assert post.take(one, two) == [two["messageId"]], "the next minute has room"
    assert post.take(post.message("three", key_id=poor), post.message("one two three four five", key_id=poor)) == []
    statuses = sorted(each["response"]["status_code"] for each in post.objects())
    assert statuses == [200, 200, 429]
    assert {each["key_id"]["S"] for each in post.records()} == {slow, poor}


def test_an_admin_key_embeds_nothing_here_either(post: Post, tables: Tables, service: Service) -> None:
    admin = service.keys.find(tables.create_key(post.account, "admin"))
    assert admin is not None
    assert post.take(post.message(key_id=admin.key_id)) == []
    [refused] = post.objects()
    assert (refused["response"]["status_code"], refused["response"]["body"]["error"]["code"]) == (
        401,
        "invalid_api_key",
    )
    assert post.records() == []


def test_what_may_succeed_later_comes_again_alone(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = post.message("good"), post.message("bad", custom_id="bad")
    real = Messages._send

    def flaky(self: Messages, asked: Any, answer: Any) -> None:
        if asked.message.custom_id == "bad":
            raise StoreUnavailableError("away")
        real(self, asked, answer)

    monkeypatch.setattr(Messages, "_send", flaky)
    assert post.take(good, bad) == [bad["messageId"]]
    assert len(post.records()) == 1
    monkeypatch.setattr(Messages, "_send", real)
    assert post.take(bad) == []
    assert len(post.records()) == 2


def test_what_there_is_no_time_for_is_handed_back(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "seconds", lambda _, cost: cost / 10)  # some three seconds each
    many = [post.message(f"a text {n}") for n in range(9)]
    late = post.take(*many, context=Context(15))
    assert 0 < len(late) < 9
    assert late == [each["messageId"] for each in many[-len(late) :]]
    assert len(post.records()) == 9 - len(late)
