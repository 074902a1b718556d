"""A function that ends at any instant, and two hundred callers at once: each call is billed once."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from tests.conftest import HOUSE
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import Tables
from tests.stack.server import PlainServer

MODEL = "all-minilm-l6-v2"

STRIKES = """
import os, pathlib, time
from handler import render
from handler.billing.ledger import Ledger
from handler.engine.engine import Engine

plan = pathlib.Path(__file__).with_name("plan")

def strike(instant):
    if plan.exists() and plan.read_text().split(",")[0] == instant:
        how = plan.read_text().split(",")[1]
        plan.unlink()
        if how == "dies":
            os._exit(1)
        if how == "hangs":
            time.sleep(600)
        raise RuntimeError("struck")

def struck(what, before, after):
    def call(*args, **more):
        strike(before)
        done = what(*args, **more)
        strike(after)
        return done
    return call

Engine.encode = struck(Engine.encode, "before inference", "after inference")
render.embeddings = struck(render.embeddings, "before rendering", "after rendering")
Ledger.write = struck(Ledger.write, "before the write", "after the write")

from handler.entry import handler
"""
INSTANTS = [
    "before inference",
    "after inference",
    "before rendering",
    "after rendering",
    "before the write",
    "after the write",
]


@dataclass(frozen=True)
class Mortal:
    """A function that can be struck."""

    door: FrontDoor
    plan: Path


@pytest.fixture(scope="module")
def mortal(service_env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    folder = tmp_path_factory.mktemp("mortal")
    (folder / "struck.py").write_text(STRIKES)
    env = {**service_env, "PYTHONPATH": f"{folder}:{HOUSE}"}
    command = ["python", "-m", "awslambdaric", "struck.handler"]
    with FrontDoor(command, env, cwd=folder, size=1, timeout_s=8) as door:
        yield Mortal(door, folder / "plan")


@pytest.mark.parametrize(
    ("instant", "how"),
    [
        *((instant, "dies") for instant in INSTANTS),
        *((instant, "fails") for instant in INSTANTS),
        ("before inference", "hangs"),
        ("after the write", "hangs"),
    ],
)
def test_a_function_that_ends_at_any_instant_is_repeated_by_the_sdk_and_billed_once(
    mortal: Mortal, tables: Tables, instant: str, how: str
) -> None:
    account = f"acct_{uuid.uuid4().hex[:12]}"
    sdk = openai.OpenAI(
        base_url=f"{mortal.door.url}/v1", api_key=tables.create_key(account, "inference"), max_retries=2, timeout=60
    )
    mortal.plan.write_text(f"{instant},{how}")
    answers = [sdk.embeddings.create(model=MODEL, input=f"{instant} it {how} {n}") for n in range(2)]
    assert not mortal.plan.exists()
    items = [item for item in tables.records() if item["pk"]["S"].startswith(f"{account}#")]
    assert sum(int(item["tokens"]["N"]) for item in items) == sum(answer.usage.total_tokens for answer in answers)
    assert sum(int(item["requests"]["N"]) for item in items) == len(answers)


# Everybody at once


def test_two_hundred_requests_with_one_key_are_billed_once(plain: PlainServer, tables: Tables) -> None:
    account = f"acct_{uuid.uuid4().hex[:12]}"
    headers = {"authorization": f"Bearer {tables.create_key(account, 'inference')}", "idempotency-key": "one"}
    # A connection for each caller: a pool that is too small closes some while others are taking them.
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    client = httpx.Client(base_url=plain.url, headers=headers, timeout=60, limits=limits)
    with client as http, ThreadPoolExecutor(200) as threads:
        ask: Callable[[int], httpx.Response] = lambda _: http.post(  # noqa: E731
            "/v1/embeddings", json={"model": MODEL, "input": "the quick brown fox"}
        )
        answers = list(threads.map(ask, range(200)))
    assert {answer.status_code for answer in answers} == {200}
    [first] = [answer for answer in answers if "x-emblet-replay" not in answer.headers]
    items = [item for item in tables.records() if item["pk"]["S"].startswith(f"{account}#")]
    assert [int(item["tokens"]["N"]) for item in items] == [first.json()["usage"]["total_tokens"]]
