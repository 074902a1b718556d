"""The two functions behind batches under Lambda's own runtime: their queues' events in, a batch out, also where one of
them is killed in the middle of a shard."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batches.works import Works, line
from tests.conftest import ENTRY, HOUSE
from tests.doors.test_lambda import LOADS, url_event
from tests.stack.emulator import Emulator, InvocationError
from tests.stack.queues import Queue


@pytest.fixture(scope="module")
def shards(jobs_env: dict[str, str]) -> Queue:
    return Queue()


@pytest.fixture(scope="module")
def role_env(jobs_env: dict[str, str], shards: Queue) -> dict[str, str]:
    return jobs_env | {"SHARDS_QUEUE": shards.url, "BATCH_SHARD_BYTES": "20000", "BATCH_SHARDS_AT_ONCE": "2"}


@pytest.fixture(scope="module")
def ledger(role_env: dict[str, str]) -> Iterator[Emulator]:
    with Emulator(ENTRY, role_env | {"FUNCTION_ROLE": "ledger"}, cwd=HOUSE, memory_mb=1024) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def work(role_env: dict[str, str]) -> Iterator[Emulator]:
    with Emulator(ENTRY, role_env | {"FUNCTION_ROLE": "work"}, cwd=HOUSE) as emulator:
        yield emulator


@pytest.fixture
def both(server_works: Works, shards: Queue) -> Works:
    """Who submits to the functions' own queues."""
    server_works.shards = shards
    return server_works


def invoke(emulator: Emulator, queue: Queue) -> int:
    """One event for each message; how many were done with."""
    done = 0
    for message in queue.messages():
        try:
            failures = emulator.invoke({"Records": [message]})["batchItemFailures"]
        except InvocationError:
            continue
        if not failures:
            queue.delete(message)
            done += 1
    return done


def run(ledger: Emulator, work: Emulator, both: Works) -> None:
    for _ in range(50):
        if not invoke(ledger, both.plans) + invoke(work, both.shards) and not both.plans.messages():
            return


def test_a_batch_goes_through_both_functions(ledger: Emulator, work: Emulator, both: Works) -> None:
    batch = both.submit(line(str(n)) for n in range(400))
    run(ledger, work, both)
    done = both.ended(batch)
    assert (done.batch.status, len(done.output), done.batch.shards) == ("completed", 400, 4)
    assert both.billed() == (done.tokens, 400)


def test_the_ledgers_function_opens_no_model(ledger: Emulator, both: Works) -> None:
    assert "loaded all-minilm-l6-v2" not in ledger.log


def test_files_and_batches_cost_the_first_embedding_nothing(
    jobs_env: dict[str, str], inference_key: str, tmp_path: Path
) -> None:
    (tmp_path / "loads.py").write_text(LOADS)
    env = {**jobs_env, "PYTHONPATH": f"{tmp_path}{os.pathsep}{HOUSE}"}
    with Emulator(["python", "-m", "awslambdaric", "loads.handler"], env, cwd=tmp_path) as emulator:
        assert emulator.invoke(url_event(inference_key))["statusCode"] == 200
        assert emulator.invoke({}) == []


def test_a_function_that_is_killed_in_the_middle_of_a_shard_costs_nothing(
    ledger: Emulator, role_env: dict[str, str], both: Works
) -> None:
    batch = both.submit(line(str(n), "a lake of cold water lies between the hills " * 5) for n in range(250))
    invoke(ledger, both.plans)
    with Emulator(ENTRY, role_env | {"FUNCTION_ROLE": "work"}, cwd=HOUSE) as doomed:
        killer = threading.Thread(target=invoke, args=(doomed, both.shards))
        killer.start()
        while "INVOKE START" not in doomed.log:
            time.sleep(0.01)
        time.sleep(0.1)
        doomed.stop()
        killer.join(20)
    assert both.jobs.get(batch.account, batch.id).status == "in_progress"
    with Emulator(ENTRY, role_env | {"FUNCTION_ROLE": "work"}, cwd=HOUSE) as another:
        run(ledger, another, both)
    done = both.ended(batch)
    assert (done.batch.status, len(done.output)) == ("completed", 250)
    assert both.billed() == (done.tokens, 250)
