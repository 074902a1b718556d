"""Every error of the contract, provoked at both doors, and no error that the contract lacks."""

import re
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from decimal import Decimal
from functools import cache, partial
from pathlib import Path

import httpx
import onnx
import pytest
from tokenizers import Tokenizer

from handler import store
from handler.billing import keys
from handler.billing.keytable import KeyTable
from handler.billing.limits import Counters
from handler.contract import errors
from handler.contract.limits import Demand
from handler.engine.manifest import CL100K, GRAPH, TOKENIZER, WEIGHTS
from tests.api.described import conforms, fetch
from tests.api.test_manners import UNREADABLE
from tests.doors import refusals
from tests.doors.conftest import ENTRY, ROOT, Server
from tests.doors.embedding import MODEL
from tests.doors.refusals import REFUSALS, Refusal
from tests.doors.test_inputs import REFUSED
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import Tables
from tests.stack.process import free_port
from tests.stack.server import PlainServer

TOKENS = 4  # of what `post` sends where a refusal does not say
NEXT = ("x-should-retry", "retry-after", "retry-after-ms", "allow")  # headers that say what to do next
PARTS = {"duration": r"[0-9]{1,2}(\.[0-9]+)?s|[0-9]+ms|1m0s", "month": "[0-9]{4}-[0-9]{2}-01T00:00:00Z", "seconds": "2"}

# Errors of a process of another kind: of one that loads (tests/api/test_app.py), of one that has no time left
# (tests/api/test_capacity.py), and of a server whose caller speaks no HTTP (tests/api/test_manners.py). Those that one
# request alone does not get (tests/doors/test_billed_once.py), or no embedding (tests/api/test_usage.py).
ELSEWHERE = [
    (400, refusals.IRE, "idempotency_key_reused", "This Idempotency-Key was used with a different request."),
    (
        *(400, refusals.IRE, "response_too_large"),
        "The bucket that starts at 0 has more than 1 results. Group by less, or filter by project_ids or api_key_ids.",
    ),
    # Of files and batches (tests/batches/).
    (400, refusals.IRE, None, "Invalid file format for Batch API. Must be .jsonl"),
    (400, refusals.IRE, None, "We could not parse the multipart/form-data body of your request."),
    (400, refusals.IRE, "batch_not_cancellable", "Cannot cancel a batch with status 'completed'."),
    (404, refusals.IRE, None, "No such File object: file-1"),
    (404, refusals.IRE, None, "The bytes of file-1 have not been put yet: PUT them to its upload.url first."),
    (404, refusals.IRE, None, "No such Batch object: batch_1"),
    (413, refusals.IRE, "request_too_large", errors.FILE_TOO_LARGE.message),  # whose words are in test_forms.py there
    (503, "service_unavailable_error", "model_loading", "The model is loading. Please try again in 2 seconds."),
    (
        *(503, "service_unavailable_error", "server_is_overloaded"),
        "The engine is currently overloaded, please try again later.",
    ),
    (
        *(504, "server_error", "deadline_exceeded"),
        "10 tokens could not be embedded within 20 seconds. Send fewer inputs or use a batch.",
    ),
    *((status, refusals.IRE, None, message) for status, message in UNREADABLE.items()),
]


@pytest.fixture(scope="module")
def damaged(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer that has rotted where no size tells: the vector of one word, and the vocabulary of the clients."""
    layer = shutil.copytree(minilm, tmp_path_factory.mktemp("damaged") / "layer")
    [scale] = [
        each
        for each in onnx.load(layer / GRAPH, load_external_data=False).graph.initializer
        if each.name == "word_embeddings.scale"
    ]
    start = next(int(entry.value) for entry in scale.external_data if entry.key == "offset")
    word = Tokenizer.from_file(str(layer / TOKENIZER)).token_to_id(refusals.ROTTEN)
    assert word is not None
    with (layer / WEIGHTS).open("r+b") as weights:
        weights.seek(start + 4 * word)
        weights.write(struct.pack("<f", float("nan")))
    (layer / CL100K).write_bytes(b"A 0\n".ljust((layer / CL100K).stat().st_size))  # A is no base64
    return layer


Services = Callable[[str, str], Server]


@pytest.fixture(scope="module")
def services(
    request: pytest.FixtureRequest,
    service_env: Mapping[str, str],
    damaged: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Services]:
    """A service by the name of what it has been through, and by its door."""
    changes = {
        refusals.STRICT: {
            "EMPTY_INPUT": "reject",
            "TOKEN_ARRAYS": "reject",
            "MAX_BODY_BYTES": str(refusals.BODY_LIMIT),
        },
        refusals.DAMAGED: {"MODEL_DIR": str(damaged)},
        refusals.STRANDED: {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"},
    }
    with ExitStack() as running:

        @cache
        def service(name: str, door: str) -> Server:
            if name == refusals.ORDINARY:
                found: Server = request.getfixturevalue({"function": "function_url", "plain": "plain"}[door])
                return found
            env = {**service_env, **changes[name]}
            if door == "function":
                return running.enter_context(FrontDoor(ENTRY, env, cwd=ROOT, size=1))
            return running.enter_context(PlainServer(env, ROOT, tmp_path_factory.mktemp(name) / "log"))

        yield service


@pytest.fixture
def key_of(tables: Tables, inference_key: str, admin_key: str) -> Callable[[Refusal], str]:
    """The key that a refusal's request is sent with."""

    def key(refusal: Refusal) -> str:
        if refusal.limits is None:
            return {"inference": inference_key, "admin": admin_key, "unknown": keys.make()}[str(refusal.key)]
        clear, made = KeyTable(store.dynamodb, tables.keys).create("acct_limited", "inference", "tests", refusal.limits)
        for ahead in (0, 60) if refusal.used else ():  # whichever minute it is when the request comes
            counters = Counters(store.dynamodb, tables.limits, partial(_after, ahead))
            counters.take(made.caller, Demand(MODEL, TOKENS, Decimal(0), _after(ahead)))
        return clear

    return key


@pytest.mark.parametrize(
    ("refusal", "door"), [(each, door) for each in REFUSALS for door in each.doors], ids=lambda value: str(value)
)
def test_an_error_is_the_contracts_to_the_letter(
    services: Services, key_of: Callable[[Refusal], str], refusal: Refusal, door: str
) -> None:
    headers = dict(refusal.headers) | ({} if refusal.key is None else {"authorization": f"Bearer {key_of(refusal)}"})
    body = {"model": MODEL, "input": "the quick brown fox", **refusal.fields}
    sent = {"json": body} if refusal.raw is None else {"content": refusal.raw}
    url = services(refusal.service, door).url + refusal.path

    answer = httpx.request(refusal.method, url, headers=headers, timeout=60, **sent)

    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"], error["param"]) == (
        refusal.status,
        refusal.type,
        refusal.code,
        refusal.param,
    )
    assert _pattern(refusal.message, PARTS | {"id": answer.headers["x-request-id"]}).fullmatch(error["message"])
    told = {name: answer.headers[name] for name in NEXT if name in answer.headers}
    assert told.keys() == refusal.told.keys()
    for name, value in told.items():
        assert re.fullmatch(refusal.told[name], value)
    if (refusal.method, refusal.path) == ("POST", "/v1/embeddings"):
        conforms(fetch(services(refusal.service, door).url), "POST", refusal.path, answer)


def test_no_error_is_missing_here_and_none_is_here_that_there_is_not() -> None:
    asked = [(row.status, row.type, row.code, row.message) for row in REFUSALS]
    asked += [(400, refusals.IRE, code, message) for _, code, _, message in REFUSED]
    left = {*errors.table()}
    for row in asked + ELSEWHERE:
        [problem] = [each for each in errors.table() if _says(each, *row)]
        left.discard(problem)
    assert not left


def _after(seconds: float) -> float:
    return time.time() + seconds


def _says(problem: errors.Problem, status: int, kind: str, code: str | None, message: str) -> bool:
    if (problem.status, problem.type, problem.code) != (status, kind, code):
        return False
    return re.fullmatch(re.sub(r"\\{\w+\\}", ".*", re.escape(problem.message)), message) is not None


def _pattern(message: str, parts: Mapping[str, str]) -> re.Pattern[str]:
    return re.compile(re.sub(r"<(\w+)>", lambda part: f"(?:{parts[part[1]]})", re.escape(message)))
