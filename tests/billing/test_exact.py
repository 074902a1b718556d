"""Whatever breaks, what a client was answered is what it is billed, to the token: nothing missing, nothing twice."""

import itertools
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from handler import store
from handler.billing.ledger import Ledger
from handler.billing.limits import Counters
from handler.billing.register import Register
from handler.events.drain import Drain
from tests.conftest import ENTRY, HOUSE
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import MiniStack, Tables
from tests.stack.outage import Fault, Outage
from tests.stack.queues import Queue
from tests.stack.server import PlainServer

MODEL = "all-minilm-l6-v2"
LONGEST_MS = 2500  # that recording may delay an answer: a second for DynamoDB, one for the queue, and their last calls
_texts = itertools.count()


def drain(tables: Tables) -> Drain:
    return Drain(
        Ledger(store.ledger, tables.usage, tables.entries),
        Counters(store.dynamodb, tables.limits),
        Register(store.dynamodb, tables.rollups),
    )


@dataclass
class Service:
    """A service behind a proxy that fails when it is told to, and what its clients were answered."""

    door: FrontDoor | PlainServer
    outage: Outage
    queue: Queue
    tables: Tables
    tool_env: Mapping[str, str]  # of an operator, whom no proxy stands in the way of
    answered: dict[str, int] = field(default_factory=dict)  # tokens by call, however often it was repeated
    delays_ms: list[float] = field(default_factory=list)

    def customer(self) -> str:
        """The key of an account of its own, with nothing answered yet."""
        self.answered.clear()
        self.delays_ms.clear()
        self.account = f"acct_{uuid.uuid4().hex[:12]}"
        self.key = self.tables.create_key(self.account, "inference")
        return self.key

    def embed(self, call: str, **headers: str) -> httpx.Response:
        """One request of a call, whose name is its text."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = httpx.post(
            f"{self.door.url}/v1/embeddings",
            json={"model": MODEL, "input": call},
            headers={"authorization": f"Bearer {self.key}", "x-emblet-timing": "true"} | named,
            timeout=60,
        )
        if answer.status_code == 200:
            self.answered[call] = answer.json()["usage"]["total_tokens"]
            timing = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
            self.delays_ms.append(float(timing["record"]))
        return answer

    def billed(self) -> int:
        """The account's tokens in the ledger."""
        records = (item for item in self.tables.records() if item["pk"]["S"].startswith(f"{self.account}#"))
        return sum(int(item["tokens"]["N"]) for item in records)

    def drain(self) -> int:
        """Write what waits in the queue; how many records that were."""
        return self.queue.deliver(drain(self.tables))

    def settled(self) -> bool:
        """Whether the ledger, once it has got everything, holds what was answered."""
        self.outage.over()
        self.drain()
        return self.billed() == sum(self.answered.values()) > 0


def new_call() -> str:
    number = next(_texts)
    return f"the quick brown fox {number}{' again' * (number % 7)}"


@pytest.fixture(scope="module", params=["function", "plain"])
def running(
    request: pytest.FixtureRequest,
    service_env: Mapping[str, str],
    ministack: MiniStack,
    tables: Tables,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """Both doors, one after the other."""
    with Outage(ministack.endpoint) as outage:
        queue = Queue()
        env = {**service_env, "AWS_ENDPOINT_URL": outage.url, "LEDGER_QUEUE": queue.url}
        door: FrontDoor | PlainServer
        if request.param == "function":
            door = FrontDoor(
                ENTRY, {**env, "AWS_LAMBDA_LOG_FORMAT": "JSON"}, cwd=HOUSE, size=2
            )  # as the template has it
        else:
            door = PlainServer(env, HOUSE, tmp_path_factory.mktemp("troubled") / "log")
        with door:
            yield Service(door, outage, queue, tables, service_env)


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    running.customer()
    yield running
    running.outage.over()
    running.drain()


# DynamoDB refuses, is silent, or its answers get lost

REFUSALS: dict[str, dict[str, Any]] = {
    "throttled": {"status": 400, "code": "ProvisionedThroughputExceededException"},
    "an error of its own": {"status": 500, "code": "InternalServerError"},
    "unavailable": {"status": 503, "code": "ServiceUnavailable"},
    "silent": {},
    "hanging up": {"hang_up": True},
    "an answer that is lost": {"hang_up": True, "done": True},
    "an answer that is late": {"done": True},
}
ONCE, TWICE, DOWN = 1, 2, 1000


@pytest.mark.parametrize("times", [ONCE, TWICE, DOWN], ids=["once", "twice", "down"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_dynamodb_that_fails_costs_a_customer_a_second_and_nobody_a_token(
    service: Service, refusal: str, times: int
) -> None:
    shape = REFUSALS[refusal]
    service.outage.begin(
        Fault("PutItem", times, **shape),
        Fault("TransactWriteItems", times, **shape),
    )
    ordinary, named = new_call(), new_call()
    answers = [
        service.embed(ordinary, x_stainless_retry_count="0"),
        service.embed(named, idempotency_key=named),
        service.embed(ordinary, x_stainless_retry_count="1"),
        service.embed(named, idempotency_key=named),
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert max(service.delays_ms) < LONGEST_MS
    if times == ONCE and shape.get("status"):  # an attempt that took its time may have been the only one
        assert service.queue.messages() == []
    assert service.settled()


def test_an_ordinary_request_after_an_outage_finds_dynamodb_again(service: Service) -> None:
    service.outage.begin(Fault("PutItem", DOWN))
    service.embed(new_call())
    service.outage.over()
    service.embed(new_call())
    assert service.drain() == 1
    assert service.settled()


def test_a_retry_that_cannot_look_is_billed_once_all_the_same(service: Service) -> None:
    call = new_call()
    service.embed(call, x_stainless_retry_count="0")
    service.outage.begin(Fault("Query", DOWN, status=500))
    assert service.embed(call, x_stainless_retry_count="1").status_code == 200
    assert service.settled()


@pytest.mark.parametrize("late_s", [0.1, 0.4, 1.0])
def test_a_retry_waits_no_longer_for_a_dynamodb_that_is_slow(
    service: Service, late_s: float, measured: Callable[[str], None]
) -> None:
    """It looks for its record in eleven minutes."""
    calls = [new_call() for _ in range(3)]
    for call in calls:
        service.embed(call, x_stainless_retry_count="0")
    service.outage.begin(*(Fault(operation, DOWN, late_s=late_s) for operation in ("Query", "PutItem")))
    service.delays_ms.clear()
    for call in calls:
        assert service.embed(call, x_stainless_retry_count="1").status_code == 200
    assert max(service.delays_ms) < LONGEST_MS
    measured(f"recording a retry takes {max(service.delays_ms):.0f} ms at most (DynamoDB answers in {late_s} s)")
    assert service.settled()


def test_messages_that_come_again_and_out_of_order_change_nothing(service: Service) -> None:
    service.outage.begin(Fault("PutItem", DOWN, status=500), Fault("TransactWriteItems", DOWN, status=500))
    for call in (new_call() for _ in range(3)):
        for count in ("0", "1"):
            service.embed(call, x_stainless_retry_count=count)
    for name in (new_call() for _ in range(3)):
        for _ in range(2):
            service.embed(name, idempotency_key=name)
    service.outage.over()
    messages = service.queue.messages()
    assert len(messages) == 12
    for order in (messages[::-1], messages[::2], messages, messages[1::2]):
        assert drain(service.tables)({"Records": order}, None) == {"batchItemFailures": []}
    assert service.billed() == sum(service.answered.values())


# The queue fails too


@pytest.mark.parametrize("refusal", ["silent", "an error of its own", "hanging up"])
def test_what_no_store_takes_is_in_the_log_and_is_written_from_there(
    service: Service, refusal: str, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    shape = REFUSALS[refusal]
    operations = ("PutItem", "TransactWriteItems", "SendMessage")
    service.outage.begin(*(Fault(operation, DOWN, **shape) for operation in operations))
    call, name = new_call(), new_call()
    assert service.embed(call).status_code == 200
    assert service.embed(name, idempotency_key="not to be logged").status_code == 200
    assert max(service.delays_ms) < LONGEST_MS
    measured(f"recording delays an answer by {max(service.delays_ms):.0f} ms at most (DynamoDB and queue: {refusal})")
    service.outage.over()
    assert service.embed(name, idempotency_key="not to be logged").status_code == 200  # has no entry yet
    log = service.door.log
    assert not any(each in log for each in ("not to be logged", call, name, service.key))
    file = tmp_path / "log"
    file.write_text(
        "\n".join(line for line in log.splitlines() if "lost_record" not in line or service.account in line)
    )
    assert replayed(file, service) == "2 records in {file}; 1 written; 1 there already, or billed with another attempt"
    assert service.billed() == sum(service.answered.values())
    assert replayed(file, service) == "2 records in {file}; 0 written; 2 there already, or billed with another attempt"
    assert service.billed() == sum(service.answered.values())


def replayed(file: Path, service: Service) -> str:
    """What the operator's tool says of a log."""
    done = subprocess.run(
        [sys.executable, "-m", "handler.billing.ledger", "replay", str(file)],
        cwd=HOUSE,
        env=service.tool_env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().replace(str(file), "{file}")


# The drain


def test_only_messages_that_are_not_done_come_again(tables: Tables, running: Service) -> None:
    if isinstance(running.door, FrontDoor):
        pytest.skip("a door of its own, the same for both")
    running.customer()
    running.outage.begin(Fault("PutItem", DOWN, status=500))
    running.embed(new_call())
    running.outage.over()
    [sound] = running.queue.messages()
    for wrong in ("[" * 100_000, "{}", sound["body"].replace('"tokens":', '"tokens":null,"t":')):
        running.queue.send(wrong)
    running.queue.send(sound["body"].replace('"account":"', '"account":"a#b'))
    running.queue.send(re.sub(r'"hash":"[0-9a-f]+"', '"hash":2', sound["body"]))
    messages = running.queue.messages()
    broken = {each["messageId"] for each in messages} - {sound["messageId"]}
    assert len(broken) == 5
    for door in (drain(tables), drain(replace(tables, entries="no-such-table"))):
        failed = door({"Records": messages}, None)["batchItemFailures"]
        assert {each["itemIdentifier"] for each in failed} == broken
    nowhere = drain(replace(tables, usage="no-such-table"))
    assert len(nowhere({"Records": messages}, None)["batchItemFailures"]) == 6
    assert running.billed() == sum(running.answered.values())
