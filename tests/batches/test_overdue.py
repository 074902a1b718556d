"""The hourly event: batches whose time is up, and what has lost its message."""

import time

from handler import store
from handler.batches.finish import Overdue
from handler.batches.queue import Steps
from tests.batches.works import Works, line


def hourly(works: Works) -> None:
    Overdue(works.jobs, Steps(store.queues, works.plans.url))()


def test_a_batch_whose_time_is_up_expires_with_what_it_has_done(works: Works) -> None:
    batch = works.submit(line(str(n)) for n in range(60))
    works.deliver()
    works.clock = lambda: time.time() + 86401
    hourly(works)
    assert works.jobs.get(works.account, batch.id).status == "in_progress"
    done = works.end(batch)
    assert done.batch.status == "expired"
    assert 0 < len(done.output) < 60
    assert {*done.output} | {*done.errors} == {str(n) for n in range(60)}
    assert {each["error"]["code"] for each in done.errors.values()} == {"batch_expired"}
    assert works.billed() == (done.tokens, len(done.output))


def test_a_lost_message_is_sent_again_by_the_hour(works: Works) -> None:
    batch = works.submit([line("1")])
    for message in works.plans.messages():
        works.plans.delete(message)
    works.clock = lambda: time.time() + 3600
    hourly(works)
    assert works.end(batch).batch.status == "completed"


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
