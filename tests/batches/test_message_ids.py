"""Messages that are known again: by SQS's id of them, or by their sender's."""

import json
import uuid

import pytest

from handler.billing.ledger import Ledger
from handler.contract.limits import Limits
from handler.service import Service
from tests.batches.post import SENT_MS, Post
from tests.stack.ministack import Tables


def test_a_message_that_is_delivered_again_is_answered_again_and_billed_once(post: Post) -> None:
    for sent in (post.message(), post.message("named", id="a-name")):
        for _ in range(3):
            assert post.take(sent) == []
    assert len(post.objects()) == 2
    assert len(post.records()) == 2


@pytest.mark.parametrize("name", [None, "order-1"])
@pytest.mark.parametrize("to_queue", [False, True])
def test_what_refuses_it_the_second_time_takes_no_answer_back(
    post: Post, tables: Tables, service: Service, name: str | None, to_queue: bool
) -> None:
    """The quota is used up by its own first delivery."""
    key = service.keys.find(tables.create_key(post.account, "inference", Limits(tokens_per_month=3)))
    assert key is not None
    to = {"queue": post.answers.url} if to_queue else None
    sent, other = (post.message(f"jumps {n}", key_id=key.key_id, id=each, to=to) for n, each in ((1, name), (2, None)))
    for _ in range(2):
        assert post.take(sent) == []
    assert post.take(other) == []
    found = [json.loads(each["body"]) for each in post.answers.messages()] if to_queue else post.objects()
    assert sorted(each["response"]["status_code"] for each in found) == [200, 429]
    assert len(post.records()) == 1


def test_a_redriven_message_is_known_by_its_senders_id(post: Post) -> None:
    first = post.message(id="order-1")
    again = first | {"messageId": str(uuid.uuid4())}
    again["attributes"] = again["attributes"] | {"SentTimestamp": str(SENT_MS + 7 * 86_400_000)}
    assert post.take(first) == post.take(again) == []
    assert len(post.records()) == len(post.objects()) == 1


def test_an_empty_id_names_nothing_and_is_refused(post: Post) -> None:
    assert post.take(post.message("one", id=""), post.message("two", id="")) == []
    errors = [each["response"]["body"]["error"] for each in post.objects()]
    assert [(error["code"], error["param"]) for error in errors] == [("invalid_type", "id")] * 2
    assert post.records() == []


def test_an_id_that_is_used_for_something_else_is_refused_and_not_billed(post: Post) -> None:
    assert post.take(post.message("one", id="order-1"), post.message("two", id="order-1")) == []
    [refused] = [each["response"] for each in post.objects() if each["response"]["status_code"] != 200]
    assert refused["body"]["error"]["code"] == "idempotency_key_reused"
    assert len(post.records()) == 1


def test_an_id_that_is_used_for_something_else_gets_no_vectors_wherever_it_is_answered(post: Post) -> None:
    to = {"queue": post.answers.url}
    assert post.take(post.message("one", id="order-1", to=to)) == []
    for text in ("two", "three"):
        assert post.take(post.message(text, id="order-1", to=to)) == []
    bodies = [json.loads(each["body"])["response"]["body"] for each in post.answers.messages()]
    assert sum("data" in body for body in bodies) == len(post.records()) == 1


def test_two_things_under_one_id_at_the_same_time_are_billed_as_they_are_answered(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = post.message("one", id="order-1"), post.message("two", id="order-1")
    assert post.take(one) == []
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "is_reused", lambda *_: False)  # it looked before the other was recorded
        assert post.take(two) == []
    assert post.take(one, two) == [], "they are known again"
    assert [each["response"]["status_code"] for each in post.objects()] == [200, 200]
    assert len(post.records()) == 2
