"""What the tests stand on: a built layer, MiniStack with the template's tables, keys, and the plain HTTP server."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiktoken
from xdist.workermanage import WorkerController

from handler.engine.manifest import CL100K
from model_layer import cl100k
from tests.stack.frontdoor import FrontDoor
from tests.stack.ministack import MiniStack, Tables
from tests.stack.server import PlainServer

HOUSE = Path(__file__).resolve().parent.parent
ACCOUNT = "acct_test"
ENTRY = ["/bin/sh", "handler/entry.sh"]  # the image's own entry point


def _layer(model: str, *options: str) -> Path:
    """The layer of a model in model_layer/out, built if it is not there."""
    call = [sys.executable, "-m", "model_layer", "build", model, "--cl100k", "litellm", "--if-absent", *options]
    with (HOUSE / "model_layer/catalog.py").open() as alone:  # of several processes of tests one builds, others wait
        fcntl.flock(alone, fcntl.LOCK_EX)
        done = subprocess.run(call, cwd=HOUSE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.split(": ")[0].removeprefix("model layer "))


# What a shell starts in the background ignores Ctrl-C, and so do its children: some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-minilm-l6-v2 in int8, real weights."""
    return _layer("all-minilm-l6-v2")


@pytest.fixture(scope="session")
def minilm_fp32() -> Path:
    return _layer("all-minilm-l6-v2", "--precision", "fp32")


@pytest.fixture(scope="session")
def seeded() -> Path:
    """bge-m3's geometry with two layers."""
    return _layer("bge-m3-seeded", "--layers", "2")


@pytest.fixture(scope="session")
def seeded_cuda() -> Path:
    """The same for a GPU."""
    return _layer("bge-m3-seeded", "--layers", "2", "--target", "cuda")


@pytest.fixture(scope="session")
def tiktoken_cl100k(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> tiktoken.Encoding:
    """cl100k_base as tiktoken itself has it, which OpenAI's clients cut text with."""
    cache = tmp_path_factory.mktemp("tiktoken")
    shutil.copy(minilm / CL100K, cache / next(iter(cl100k.WHEEL.files)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        return tiktoken.get_encoding("cl100k_base")


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MiniStack]:
    """AWS's stand-in, on a port of its own for this session."""
    with MiniStack(HOUSE / ".venv-ministack/bin/ministack", tmp_path_factory.mktemp("ministack")) as stack:
        os.environ.update(stack.env)
        yield stack


@pytest.fixture(scope="session")
def tables(ministack: MiniStack) -> Tables:
    """The tables of template.yaml."""
    return ministack.create_tables(HOUSE / "template.yaml")


@pytest.fixture(scope="session")
def inference_key(tables: Tables) -> str:
    return tables.create_key(ACCOUNT, "inference")


@pytest.fixture(scope="session")
def admin_key(tables: Tables) -> str:
    return tables.create_key(ACCOUNT, "admin")


@pytest.fixture(scope="session")
def service_env(ministack: MiniStack, tables: Tables, minilm: Path) -> dict[str, str]:
    return serving(ministack.env, tables, minilm)


def serving(aws: dict[str, str], tables: Tables, layer: Path) -> dict[str, str]:
    """The environment of a process that serves a layer; `python` is the interpreter of these tests, as it is the
    image's in an image."""
    return aws | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MODEL_DIR": str(layer),
        "KEYS_TABLE": tables.keys,
        "USAGE_TABLE": tables.usage,
        "LIMITS_TABLE": tables.limits,
        "PRICES_TABLE": tables.prices,
        "ENTRIES_TABLE": tables.entries,
        "ROLLUPS_TABLE": tables.rollups,
    }


@pytest.fixture(scope="session")
def plain(service_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlainServer]:
    """The service as a plain HTTP server, in a process of its own."""
    with PlainServer(service_env, HOUSE, tmp_path_factory.mktemp("plain") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def function_url(service_env: dict[str, str]) -> Iterator[FrontDoor]:
    """The function as Lambda runs it, behind its URL, with a reserved concurrency of 2."""
    with FrontDoor(ENTRY, service_env, cwd=HOUSE, size=2) as door:
        yield door


_measured = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Shows a line at the end of the run, whether tests pass or fail."""
    return pytestconfig.stash.setdefault(_measured, []).append


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes of tests hands its lines to the one that started it."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["measured"] = session.config.stash.get(_measured, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    node.config.stash.setdefault(_measured, []).extend(getattr(node, "workeroutput", {}).get("measured", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_measured, None):
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.line(line)
