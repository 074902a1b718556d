"""The hourly event: batches whose time is up, and what has lost its message."""

import time

from handler import store
from handler.batches.finish import Overdue
from handler.batches.queue import Steps
from tests.batches.works import Works, line
from tests.stack.queues import Queue


def hourly(works: Works) -> None:
    Overdue(works.jobs, Steps(store.queues, works.plans.url))()


def lose(queue: Queue) -> None:
    for message in queue.messages():
        queue.delete(message)


def test_a_batch_whose_time_is_up_expires_with_what_it_has_done(works: Works) -> None:
    batch = works.submit(line(str(n)) for n in range(60))
    works.deliver()
    works.clock = lambda: time.time() + 86401
    hourly(works)
    found = works.jobs.get(works.account, batch.id)
    assert (found.status, found.ends) == ("in_progress", "expired")
    done = works.end(batch)
    assert done.batch.status == "expired"
    assert 0 < len(done.output) < 60
    assert {*done.output} | {*done.errors} == {str(n) for n in range(60)}
    assert {each["error"]["code"] for each in done.errors.values()} == {"batch_expired"}
    assert works.billed() == (done.tokens, len(done.output))


def test_a_lost_message_is_sent_again_by_the_hour(works: Works) -> None:
    batch = works.submit([line("1")])
    lose(works.plans)
    works.clock = lambda: time.time() + 3600
    hourly(works)
    assert works.end(batch).batch.status == "completed"


def test_a_batch_that_is_done_and_has_lost_its_message_is_finished_by_the_hour(works: Works) -> None:
    batch = works.submit([line("1")])
    works.deliver()
    lose(works.plans)
    assert works.jobs.get(works.account, batch.id).status == "in_progress"
    hourly(works)
    works.until_quiet()
    works.whole(batch, ["1"])


def test_a_batch_that_is_being_cancelled_and_has_lost_its_messages_is_closed_by_the_hour(works: Works) -> None:
    batch = works.submit(line(str(n)) for n in range(60))
    works.deliver()
    works.desk.cancel(works.account, batch.id)
    lose(works.plans)
    lose(works.shards)
    hourly(works)
    assert works.end(batch).batch.status == "cancelled"


def test_shards_that_have_lost_their_messages_are_sent_again_by_the_hour(works: Works) -> None:
    """Those of dead letters, too. Of a shard that only waits another comes, which changes nothing."""
    batch = works.submit(line(str(n)) for n in range(60))
    works.deliver()
    lost, waiting = works.shards.messages()[:2]
    works.shards.delete(lost)
    works.shards.delete(waiting)
    works.until_quiet()
    assert works.jobs.get(works.account, batch.id).status == "in_progress"
    hourly(works)
    works.plans.deliver(works.planner)
    assert works.shards.messages() == [], "their turn has been for no hour yet"
    works.shards.send(waiting["body"])
    works.clock = lambda: time.time() + 3601
    hourly(works)
    works.until_quiet()
    works.whole(batch, map(str, range(60)))


def test_shards_whose_turn_has_just_come_are_not_sent_again_however_old_their_batch_is(works: Works) -> None:
    works.submit(line(str(n)) for n in range(60))
    works.plans.deliver(works.planner)
    works.clock = lambda: time.time() + 3601
    works.shards.deliver(works.executor)
    waiting = len(works.shards.messages())
    hourly(works)
    works.plans.deliver(works.planner)
    assert len(works.shards.messages()) == waiting == works.config.batch_shards_at_once
