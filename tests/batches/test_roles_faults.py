"""Both functions behind batches under Lambda's own runtime, called by queues that hide, count and give up messages,
while one thing after another goes wrong: each batch comes out whole, and is billed to the token."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from handler.billing.keytext import digest
from handler.contract.batches import Batch
from handler.service import Service
from handler.settings import Settings
from tests.batches.post import Post
from tests.batches.works import Works, line
from tests.conftest import ENTRY, HOUSE
from tests.stack.emulator import Emulator, InvocationError
from tests.stack.outage import Fault, Outage
from tests.stack.queues import Queue

HIDDEN_S = 1  # of a message that a function has failed at
LINES = 60  # of some nine a shard
PATIENCE_S = 240  # a function that is killed boots anew, six times in a test


@dataclass
class Running:
    """Both functions, each with its own way to its stores, and the queues that call them. `crashes`: calls that have
    ended with their function."""

    ledger: Emulator
    work: Emulator
    stores_of_ledger: Outage
    stores_of_work: Outage
    plans: Queue
    shards: Queue
    waiting: Queue
    dead: Queue
    crashes: int = 0
    seen: list[tuple[Emulator, dict[str, object]]] = field(default_factory=list)

    def begin(self, *faults: Fault) -> None:
        """For both."""
        self.stores_of_ledger.begin(*faults)
        self.stores_of_work.begin(*faults)

    def until(self, is_over: Callable[[], bool], chance: random.Random | None = None) -> None:
        """Call the functions as event source mappings do, a message an event. With `chance`, each event twice, in any
        order, and an earlier one with it."""
        end = time.monotonic() + PATIENCE_S
        while not is_over():
            assert time.monotonic() < end, "it does not come to an end"
            took = 0
            for queue, function in ((self.plans, self.ledger), (self.waiting, self.ledger), (self.shards, self.work)):
                found = queue.receive(10 if chance else 1)
                took += len(found)
                if chance:
                    chance.shuffle(found)
                for message in found:
                    done = [self._call(function, message) for _ in range(2 if chance else 1)]
                    if any(done):
                        queue.delete(message)
                    if chance:
                        self._call(*chance.choice(self.seen))
            if not took:
                time.sleep(0.05)

    def until_quiet(self, chance: random.Random | None = None) -> None:
        """Until no queue holds anything, seen or hidden."""
        self.until(lambda: not self.plans.size + self.shards.size + self.waiting.size, chance)

    def _call(self, function: Emulator, message: dict[str, object]) -> bool:
        self.seen.append((function, message))
        try:
            return not function.invoke({"Records": [message]})["batchItemFailures"]
        except InvocationError:
            self.crashes += 1
            return False


@pytest.fixture(scope="module")
def environment(jobs_env: dict[str, str]) -> Iterator[Running]:
    """Booted once: a function that is killed is started anew by its next call, as on Lambda."""
    plans, shards, waiting, dead = (Queue(HIDDEN_S) for _ in range(4))
    env = jobs_env | {
        "PLANS_QUEUE": plans.url,
        "SHARDS_QUEUE": shards.url,
        "LEDGER_QUEUE": waiting.url,
        "BATCH_SHARD_BYTES": "1500",
        "BATCH_SHARDS_AT_ONCE": "4",
    }
    target = jobs_env["AWS_ENDPOINT_URL"]
    with Outage(target) as of_ledger, Outage(target) as of_work:
        ledger_env = env | {"FUNCTION_ROLE": "ledger", "AWS_ENDPOINT_URL": of_ledger.url}
        work_env = env | {"FUNCTION_ROLE": "work", "AWS_ENDPOINT_URL": of_work.url}
        with (
            Emulator(ENTRY, ledger_env, cwd=HOUSE, memory_mb=1024) as ledger,
            Emulator(ENTRY, work_env, cwd=HOUSE) as work,
        ):
            yield Running(ledger, work, of_ledger, of_work, plans, shards, waiting, dead)


@pytest.fixture
def running(environment: Running) -> Iterator[Running]:
    for queue in (environment.plans, environment.shards):
        queue.redrive_to(environment.dead, after=20)  # as the template has it
    environment.crashes = 0
    environment.seen.clear()
    yield environment
    environment.stores_of_ledger.over()
    environment.stores_of_work.over()


@pytest.fixture
def works(running: Running, config: Settings, service: Service, account: str, key: str) -> Works:
    """Who submits to their queues."""
    return Works(config, service, account, digest(key), running.plans, running.shards)


def submit(works: Works) -> Batch:
    return works.submit(line(str(n)) for n in range(LINES))


def check(works: Works, batch: Batch) -> None:
    done = works.whole(batch, map(str, range(LINES)))
    assert len(works.records()) == done.batch.shards


def test_a_batch_is_whole_where_nothing_goes_wrong(running: Running, works: Works) -> None:
    batch = submit(works)
    running.until_quiet()
    check(works, batch)
    assert running.crashes == 0


# What leaves a trace outside a function, in the order in which it does it.
INSTANTS = {
    "ledger": ("PutObject", "UpdateItem", "SendMessageBatch", "CompleteMultipartUpload", "TransactWriteItems"),
    "work": ("GetObject", "PutObject", "PutItem", "TransactWriteItems", "SendMessageBatch", "SendMessage"),
}


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("function", INSTANTS)
def test_a_function_that_is_killed_at_each_instant_of_its_work_costs_nothing(
    running: Running, works: Works, function: str, moment: str
) -> None:
    stores, killed = {
        "ledger": (running.stores_of_ledger, running.ledger),
        "work": (running.stores_of_work, running.work),
    }[function]
    stores.begin(*(Fault(each, 1, done=moment == "after", kill=killed.kill) for each in INSTANTS[function]))
    batch = submit(works)
    running.until_quiet()
    assert stores.left == {}, "it was killed at each"
    assert running.crashes == len(INSTANTS[function])
    check(works, batch)


@pytest.mark.parametrize("seed", [1, 2])
def test_events_that_come_twice_in_any_order_and_long_after_change_nothing(
    running: Running, works: Works, seed: int
) -> None:
    batch = submit(works)
    running.until_quiet(random.Random(seed))
    check(works, batch)


REFUSED = {"status": 503, "code": "SlowDown"}
LOST = {"done": True, "hang_up": True}


@pytest.mark.parametrize("store", ["S3", "SQS", "DynamoDB"])
@pytest.mark.parametrize(("fault", "times"), [(REFUSED, 12), (LOST, 3)], ids=["away", "answers lost"])
def test_a_store_that_fails_for_a_while_costs_time_alone(
    running: Running, works: Works, store: str, fault: dict[str, object], times: int
) -> None:
    batch = submit(works)
    running.until(lambda: works.jobs.get(works.account, batch.id).done > 1)
    running.begin(Fault(store, times, **fault))  # type: ignore[arg-type]
    running.until_quiet()
    assert running.stores_of_work.left == {}
    check(works, batch)


def test_records_that_the_ledger_does_not_take_are_in_it_in_the_end(running: Running, works: Works) -> None:
    """They wait in the ledger queue, from which the same function that joins their batch writes them."""
    running.stores_of_work.begin(Fault("PutItem", 10, status=500))
    batch = submit(works)
    running.until_quiet()
    assert running.stores_of_work.left == {}
    check(works, batch)


def test_shards_that_were_given_up_are_done_once_they_are_sent_back(running: Running, works: Works) -> None:
    running.shards.redrive_to(running.dead, after=3)
    batch = submit(works)
    running.until(lambda: works.jobs.get(works.account, batch.id).done > 1)
    running.stores_of_work.begin(Fault("S3", 10_000, **REFUSED))  # type: ignore[arg-type]
    running.until_quiet()
    given_up = running.dead.receive(10)
    assert {each["attributes"]["ApproximateReceiveCount"] for each in given_up} == {"4"}
    assert works.jobs.get(works.account, batch.id).status == "in_progress"
    running.stores_of_work.over()
    for message in given_up:
        running.shards.send(message["body"])
        running.dead.delete(message)
    running.until_quiet()
    check(works, batch)


# A line that ends whoever executes it

POISON = """
import os, signal
from handler.batches import careful
from handler.bulk import Bulk

careful._ENDS_S = -60.0  # here a message is there again at once, where SQS hides it until its execution has long ended

accept = Bulk._accept

def accepting(self, body):
    if body["input"] == "poison":
        os.kill(os.getpid(), signal.SIGSEGV)
    if body["input"] == "never":
        raise RuntimeError("not to be told")
    return accept(self, body)

Bulk._accept = accepting
from handler.entry import handler
"""


@pytest.fixture
def poisoned(running: Running, tmp_path: Path) -> Iterator[Running]:
    """Its texts `poison` end the process, as a fault in native code does; at `never` it always fails."""
    (tmp_path / "poison.py").write_text(POISON)
    env = running.work.env | {"PYTHONPATH": f"{tmp_path}:{HOUSE}"}
    command = ["python", "-m", "awslambdaric", "poison.handler"]
    with Emulator(command, env, cwd=tmp_path) as work:
        yield replace(running, work=work)


def test_a_line_that_ends_its_function_is_the_only_one_that_becomes_an_error(poisoned: Running, works: Works) -> None:
    """Twice its whole shard ends; received for the third time it goes line by line, and the line ends it twice more."""
    bad = {"3": "poison", "5": "never"}
    batch = works.submit(line(str(n), bad.get(str(n), "the quick brown fox")) for n in range(LINES))
    poisoned.until_quiet()
    done = works.whole(batch, {str(n) for n in range(LINES)} - {*bad})
    assert {*done.errors} == {*bad}
    assert poisoned.crashes == 4
    for each in done.errors.values():
        error = each["response"]["body"]["error"]
        assert (each["response"]["status_code"], error["type"]) == (500, "server_error")
        assert each["response"]["request_id"] in error["message"]
        assert "not to be told" not in str(each)


def test_a_message_that_ends_its_function_is_answered_with_an_error(poisoned: Running, post: Post) -> None:
    """Twice with the others of its call, and twice alone."""
    messages = {text: post.message(text, custom_id=text)["body"] for text in ("poison", "never", "the quick brown fox")}
    queue = Queue(HIDDEN_S)
    for body in messages.values():
        queue.send(body)
    end = time.monotonic() + PATIENCE_S
    while queue.size:
        assert time.monotonic() < end, "it does not come to an end"
        found = queue.receive(10)
        try:
            answer = poisoned.work.invoke({"Records": found})["batchItemFailures"] if found else []
        except InvocationError:
            poisoned.crashes += 1
            continue
        again = [each["itemIdentifier"] for each in answer]
        for each in found:
            if each["messageId"] not in again:
                queue.delete(each)
    assert poisoned.crashes == 4
    statuses = {each["custom_id"]: each["response"]["status_code"] for each in post.objects()}
    assert statuses == {"poison": 500, "never": 500, "the quick brown fox": 200}
    assert len(post.records()) == 1
