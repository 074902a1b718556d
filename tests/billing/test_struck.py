"""A service that ends, fails or hangs at any instant, and two hundred callers at once: each call is billed once."""

import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx2  # the SDK's own
import openai
import pytest

from handler import store
from handler.billing.ledger import Ledger
from handler.billing.limits import Counters
from handler.billing.register import Register
from handler.events.drain import Drain
from tests.conftest import HOUSE
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import Tables
from tests.stack.process import Process, free_port
from tests.stack.queues import Queue
from tests.stack.server import PlainServer

MODEL = "all-minilm-l6-v2"

STRIKES = """
import base64, os, pathlib, threading, time, types
from handler import render, store
from handler.billing.ledger import Ledger
from handler.billing.outbox import Outbox
from handler.billing.puts import Puts
from handler.engine.engine import Engine
from handler.service import Service

plan, woken = (pathlib.Path(__file__).with_name(name) for name in ("plan", "woken"))
thread = threading.local()

def strike(instant):
    strikes = plan.read_text().splitlines()
    if not strikes or strikes[0].split(", ")[0] != instant:
        return
    plan.write_text("\\n".join(strikes[1:]))
    match strikes[0].split(", ")[1]:
        case "dies":
            os._exit(1)
        case "fails":
            raise RuntimeError("struck")
        case "is refused":
            raise store.StoreUnavailableError("struck")
        case "hangs":
            thread.hangs = True
            time.sleep(float(os.environ["HANGS_S"]))

def struck(what, before, after=None):
    def call(*args, **more):
        strike(before)
        done = what(*args, **more)
        strike(after)
        return done
    return call

Engine.encode = struck(Engine.encode, "before inference", "after inference")
render.base64 = types.SimpleNamespace(b64encode=struck(base64.b64encode, "while rendering"))
Ledger.write = struck(Ledger.write, "before the write", "after the write")
Ledger._excuse = struck(Ledger._excuse, "before an excuse", "after an excuse")
Puts.put = struck(Puts.put, "a put")
Outbox.keep = struck(Outbox.keep, "before the queue", "after the queue")

def answer(*args, real=Service.answer):
    try:
        return real(*args)
    finally:
        if getattr(thread, "hangs", False):
            thread.hangs = False
            with woken.open("a") as file:
                file.write("once\\n")

Service.answer = answer

if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    from handler.entry import handler
else:
    from handler.api.app import create_app
"""
# A host's own way with a server that has ended: another one.
AGAIN = """
trap 'kill $server; exit' TERM
while :; do
  python -m uvicorn struck:create_app --factory --port $PORT --http handler.api.protocol:Http11 --no-access-log &
  server=$!
  wait $server
done
"""
INSTANTS = {
    "before inference": ["before inference"],
    "after inference": ["after inference"],
    "while rendering": ["while rendering"],
    "before the write": ["before the write"],
    "after the write": ["after the write"],
    "between DynamoDB and the queue": ["a put, is refused", "before the queue"],
    "after the queue": ["a put, is refused", "after the queue"],
    "before an excuse": ["after the write, fails", "before an excuse"],
    "after an excuse": ["after the write, fails", "after an excuse"],
}
# A function that hangs is ended as one that dies, five seconds later: so it does at one instant of each kind.
FUNCTION_HANGS = ("before inference", "after the write", "after an excuse")


@dataclass(frozen=True)
class Mortal:
    """A service that can be struck. `outlives`: whether a call that hangs goes on once its client has given up, which
    is after `patience_s`."""

    url: str
    folder: Path
    queue: Queue
    patience_s: float
    outlives: bool

    def plan(self, *strikes: str) -> None:
        (self.folder / "woken").unlink(missing_ok=True)
        (self.folder / "plan").write_text("\n".join(strikes))

    def planned(self) -> str:
        return (self.folder / "plan").read_text()

    def woke(self, times: int) -> bool:
        """Whether so many calls that hung have come to their ends by now."""
        woken = self.folder / "woken"
        return not self.outlives or (woken.exists() and len(woken.read_text().splitlines()) == times)


@pytest.fixture(scope="module", params=["function", "plain"])
def mortal(
    request: pytest.FixtureRequest, service_env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mortal]:
    """Both doors. A function is ended by its timeout; a plain server's client gives up first."""
    folder, queue = tmp_path_factory.mktemp("mortal"), Queue()
    (folder / "struck.py").write_text(STRIKES)
    (folder / "plan").touch()
    env = {**service_env, "PYTHONPATH": f"{folder}:{HOUSE}", "LEDGER_QUEUE": queue.url}
    if request.param == "function":
        command = ["python", "-m", "awslambdaric", "struck.handler"]
        with FrontDoor(command, {**env, "HANGS_S": "600"}, cwd=folder, size=1, timeout_s=5) as door:
            yield Mortal(door.url, folder, queue, patience_s=60, outlives=False)
    else:
        url, env = f"http://127.0.0.1:{(port := free_port())}", {**env, "PORT": str(port), "HANGS_S": "2"}
        process = Process(["sh", "-c", AGAIN], env, HOUSE, folder / "log", f"{url}/ready")
        try:
            yield Mortal(url, folder, queue, patience_s=1.0, outlives=True)
        finally:
            process.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's pauses are of half a second and more: here it goes on asking ten times a second."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.1)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["dies", "fails", "hangs"])
@pytest.mark.parametrize("instant", INSTANTS)
def test_a_service_that_ends_at_any_instant_is_asked_again_by_the_sdk_and_billed_once(
    mortal: Mortal, tables: Tables, instant: str, how: str
) -> None:
    if how == "hangs" and not mortal.outlives and instant not in FUNCTION_HANGS:
        pytest.skip("a function that hangs ends as one that dies")
    account = f"acct_{uuid.uuid4().hex[:12]}"
    sdk = openai.OpenAI(
        base_url=f"{mortal.url}/v1",
        api_key=tables.create_key(account, "inference"),
        max_retries=300,
        timeout=mortal.patience_s if how == "hangs" else 60,
    )
    strikes = [strike if "," in strike else f"{strike}, {how}" for strike in INSTANTS[instant]]
    mortal.plan(*strikes)
    answers = [sdk.embeddings.create(model=MODEL, input=f"{instant} it {how} {n}") for n in range(2)]
    assert mortal.planned() == ""
    deadline = time.monotonic() + 20
    while how == "hangs" and not mortal.woke(len([each for each in strikes if "hangs" in each])):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ledger = Ledger(store.ledger, tables.usage, tables.entries)
    register = Register(store.dynamodb, tables.rollups)
    mortal.queue.deliver(Drain(ledger, Counters(store.dynamodb, tables.limits), register))
    items = [item for item in tables.records() if item["pk"]["S"].startswith(f"{account}#")]
    assert sum(int(item["tokens"]["N"]) for item in items) == sum(answer.usage.total_tokens for answer in answers)
    assert sum(int(item["requests"]["N"]) for item in items) == len(answers)


# Everybody at once


def test_two_hundred_requests_with_one_key_are_billed_once(plain: PlainServer, tables: Tables) -> None:
    """More than a server takes at once: who is refused asks again."""
    account = f"acct_{uuid.uuid4().hex[:12]}"
    # A connection for each caller: a pool that is too small closes some while others are taking them.
    limits = httpx2.Limits(max_connections=200, max_keepalive_connections=200)
    sdk = openai.OpenAI(
        base_url=f"{plain.url}/v1",
        api_key=tables.create_key(account, "inference"),
        default_headers={"idempotency-key": "one"},
        max_retries=100,
        timeout=60,
        http_client=openai.DefaultHttpxClient(limits=limits),
    )
    ask = partial(sdk.embeddings.with_raw_response.create, model=MODEL)
    with sdk, ThreadPoolExecutor(200) as threads:
        answers = list(threads.map(lambda text: ask(input=text), ["the quick brown fox"] * 200))
    [first] = [answer for answer in answers if "x-emblet-replay" not in answer.headers]
    items = [item for item in tables.records() if item["pk"]["S"].startswith(f"{account}#")]
    assert [int(item["tokens"]["N"]) for item in items] == [first.parse().usage.total_tokens]
