"""A small batch beside a huge one ends in its own time: by how many shards of the other are done meanwhile, not by
seconds."""

from collections.abc import Callable

import pytest

from handler.batches.queue import Shard, Shards
from handler.billing.keytext import digest
from handler.events.shards import Pointers
from handler.service import Service
from handler.settings import Settings
from handler.store import StoreUnavailableError
from tests.batches.works import Works, line
from tests.stack.ministack import Tables
from tests.stack.queues import Queue


def turn(works: Works) -> None:
    """One poller: of each queue one message, as it comes."""
    for queue, door in ((works.plans, works.planner), (works.shards, works.executor)):
        take(queue, door)


def take(queue: Queue, door: Pointers) -> None:
    for message in queue.receive():
        assert door({"Records": [message]}, None) == {"batchItemFailures": []}
        queue.delete(message)


@pytest.fixture(params=["another account", "the same account"])
def neighbour(request: pytest.FixtureRequest, works: Works, tables: Tables, service: Service) -> Works:
    """Who submits to the same queues."""
    if request.param == "the same account":
        return works
    other = f"{works.account}_other"
    key_hash = digest(tables.create_key(other, "inference"))
    return Works(works.config, service, other, key_hash, works.plans, works.shards)


def test_a_small_batch_ends_before_as_many_shards_of_a_huge_one_are_done_as_may_be_out(
    works: Works, neighbour: Works, config: Settings
) -> None:
    """MiniStack gives messages out in the order in which they came, and knows nothing of groups: this is what holds
    without them. AWS's fair queues beside it prefer who has least under way (by the message group, an account's)."""
    huge = works.submit(line(str(n)) for n in range(300))
    done = progress(works, huge.id)
    while done() < 5:
        turn(works)
    small, before = neighbour.submit([line("1")]), done()
    while neighbour.jobs.get(neighbour.account, small.id).status != "completed":
        assert done() - before <= config.batch_shards_at_once
        turn(works)
    assert works.jobs.get(works.account, huge.id).status == "in_progress"
    assert (works.jobs.get(works.account, huge.id).shards or 0) > 6 * config.batch_shards_at_once


def progress(works: Works, batch: str) -> Callable[[], int]:
    return lambda: works.jobs.get(works.account, batch).done


def test_every_message_of_a_batch_belongs_to_the_group_of_its_account(works: Works) -> None:
    works.submit(line(str(n)) for n in range(60))
    [plan] = works.plans.receive(10)
    assert works.planner({"Records": [plan]}, None) == {"batchItemFailures": []}
    [first, *others] = works.shards.receive(10)
    assert len(others) == works.config.batch_shards_at_once - 1
    assert works.executor({"Records": [first]}, None) == {"batchItemFailures": []}
    [following] = works.shards.receive(10)
    assert {each["attributes"]["MessageGroupId"] for each in (plan, first, *others, following)} == {works.account}


def test_shards_that_their_queue_has_not_taken_are_no_sent_ones() -> None:
    """SQS takes some of a call's messages, and says of the others that it has not."""

    class Busy:
        def send_message_batch(self, *, Entries: list[dict[str, str]], **_: object) -> dict[str, object]:  # noqa: N803
            return {"Successful": [{"Id": "0"}], "Failed": [{"Id": each["Id"]} for each in Entries[1:]]}

    queue, shard = Shards(Busy, "url", 2), Shard("acct", "batch_1", 0, 0, 10, 1)
    queue.send([shard])
    with pytest.raises(StoreUnavailableError):
        queue.send([shard, shard])
