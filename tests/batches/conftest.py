"""A deployment that has files and batches, at both doors."""

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import openai
import pytest

from handler.billing.keytext import digest
from handler.engine.engine import Engine
from handler.events.messages import Messages
from handler.service import Service
from handler.settings import Settings
from tests.batches.post import Post
from tests.batches.works import Works, configured
from tests.conftest import ENTRY, HOUSE
from tests.doors.conftest import Server
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import MiniStack, Tables
from tests.stack.queues import Queue
from tests.stack.server import PlainServer


@pytest.fixture(scope="session")
def bucket(ministack: MiniStack) -> str:
    boto3.client("s3").create_bucket(Bucket="batches-of-tests")
    return "batches-of-tests"


@pytest.fixture(scope="session")
def plans(ministack: MiniStack) -> Queue:
    """The queue that both doors send plans to."""
    return Queue()


@pytest.fixture(scope="session")
def jobs_env(service_env: dict[str, str], tables: Tables, bucket: str, plans: Queue) -> dict[str, str]:
    """With credentials that end, as a function's role has them: an address carries their token."""
    role = boto3.client("sts").get_session_token()["Credentials"]
    return service_env | {
        "JOBS_TABLE": tables.jobs,
        "RESULTS_BUCKET": bucket,
        "PLANS_QUEUE": plans.url,
        "AWS_ACCESS_KEY_ID": role["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": role["SecretAccessKey"],
        "AWS_SESSION_TOKEN": role["SessionToken"],
    }


@pytest.fixture(scope="session")
def jobs_plain(jobs_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainServer]:
    with PlainServer(jobs_env, HOUSE, tmp_path_factory.mktemp("batches") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def jobs_function(jobs_env: dict[str, str]) -> Iterator[FrontDoor]:
    with FrontDoor(ENTRY, jobs_env, cwd=HOUSE, size=1) as door:
        yield door


@pytest.fixture(params=["function", "plain"])
def server(request: pytest.FixtureRequest) -> Server:
    """Both doors, one after the other."""
    door: Server = request.getfixturevalue(f"jobs_{request.param}")
    return door


@pytest.fixture
def account() -> str:
    """One that no other test has."""
    return f"acct_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(server: Server, account: str, tables: Tables) -> openai.OpenAI:
    """The SDK of a new account."""
    return sdk(server)(tables.create_key(account, "inference"))


def sdk(server: Server) -> Callable[[str], openai.OpenAI]:
    return lambda key: openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="session")
def config(minilm: Path, tables: Tables, bucket: str) -> Settings:
    return configured(minilm, tables, bucket, batch_shard_bytes=1500, batch_shards_at_once=3)


@pytest.fixture(scope="session")
def service(config: Settings) -> Service:
    made = Service.open(config)
    made.load()
    return made


@pytest.fixture
def key(account: str, tables: Tables) -> str:
    return tables.create_key(account, "inference")


@pytest.fixture
def works(config: Settings, service: Service, account: str, key: str) -> Works:
    """The passes of batches, for a new account."""
    return Works(config, service, account, digest(key))


@pytest.fixture
def server_works(config: Settings, service: Service, account: str, key: str, plans: Queue) -> Works:
    """The same behind both doors."""
    return Works(config, service, account, digest(key), plans)


@pytest.fixture
def post(config: Settings, service: Service, account: str, bucket: str) -> Post:
    answers, dead = Queue(), Queue()
    places = f"s3://{bucket}/elsewhere/, {answers.url}"
    own = replace(config, result_destinations=places, dead_messages_queue=dead.url)
    return Post(Messages(own, service), account, bucket, config.usage_table, answers, dead)


@pytest.fixture
def behind(server_works: Works) -> Iterator[None]:
    """Who does the work while the terminal waits."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.1):
            server_works.deliver()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


@pytest.fixture
def failing_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third time that texts are encoded, there is no memory."""
    encode, calls = Engine.encode, iter(range(100))

    def failing(self: Engine, *args: Any) -> Any:
        if next(calls) == 2:
            raise MemoryError
        return encode(self, *args)

    monkeypatch.setattr(Engine, "encode", failing)
