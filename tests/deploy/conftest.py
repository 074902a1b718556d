"""The deployment the tests here look at: the image of the Dockerfile, the stack of the template, the one running in the
other."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stack import cloudformation, image
from tests.stack.cloudformation import Stack
from tests.stack.emulator import Emulator
from tests.stack.image import Image
from tests.stack.ministack import MiniStack

REPOSITORY = Path(__file__).parents[2]
MODEL = "all-minilm-l6-v2"


@pytest.fixture(scope="session")
def images(minilm: Path) -> Iterator[dict[str, Image]]:
    """The stages that the image for CPUs is made of, carried out; the model layer is the one in model_layer/out."""
    stages = image.stages(REPOSITORY / "Dockerfile")
    # Other models' layers stay away: gigabytes to copy, and nothing is made of them.
    others = [f"model_layer/out/{each.name}" for each in minilm.parent.iterdir() if each != minilm]
    made: dict[str, Image] = {}
    # Not pytest's own folder, which is closed to the user that Lambda runs the function as.
    with tempfile.TemporaryDirectory(prefix="emblet-image-") as folder:
        Path(folder).chmod(0o755)
        for name in ("code", "layer", "cpu"):
            root = Path(folder, name)
            root.mkdir()
            root.chmod(0o755)
            patterns = [*image.ignored(REPOSITORY), *others]
            made[name] = image.carry_out(
                stages[name], root, REPOSITORY, patterns=patterns, earlier=made, arguments={"MODEL": MODEL}
            )
        yield made


@pytest.fixture(scope="session")
def cpu(images: dict[str, Image]) -> Image:
    return images["cpu"]


@pytest.fixture(scope="session")
def contents(cpu: Image) -> dict[str, int]:
    """What lies in the image before anything has run from it."""
    return mtimes(cpu.root)


def mtimes(root: Path) -> dict[str, int]:
    """Every file and folder below a root, and when it was last changed, in ns."""
    return {str(path.relative_to(root)): path.lstat().st_mtime_ns for path in root.rglob("*")}


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that tells the stack's functions where their environments run."""
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="session")
def stack(ministack: MiniStack, address: Path) -> Stack:
    """template.yaml, deployed with its defaults."""
    return cloudformation.deploy(REPOSITORY / "template.yaml", ministack.endpoint, forward_to=address)


def environment(cpu: Image, stack: Stack, name: str, ministack: MiniStack) -> Emulator:
    """The image's entry point in an execution environment, as Lambda's user, with the image's own variables, those the
    deployed function of this name has, and MiniStack's address; nothing of this machine's."""
    configuration = cloudformation.client("lambda", ministack.endpoint).get_function_configuration(
        FunctionName=stack.resources[name], Qualifier="live"
    )
    variables = configuration["Environment"]["Variables"] | {"AWS_ENDPOINT_URL": ministack.endpoint}
    return Emulator(
        image.unprivileged([str(cpu.outside(word)) for word in cpu.entrypoint]),
        cpu.environment() | variables,
        cwd=cpu.outside("."),
        memory_mb=configuration["MemorySize"],
        timeout_s=configuration["Timeout"],
    )


@pytest.fixture(scope="session")
def function(
    cpu: Image, contents: dict[str, int], stack: Stack, address: Path, ministack: MiniStack
) -> Iterator[Emulator]:
    """The one behind the URL."""
    with environment(cpu, stack, "Embed", ministack) as emulator:
        (address / "Embed").write_text(emulator.endpoint)
        yield emulator


@pytest.fixture(scope="session")
def ledger(
    cpu: Image, contents: dict[str, int], stack: Stack, address: Path, ministack: MiniStack
) -> Iterator[Emulator]:
    """The one that keeps the books."""
    with environment(cpu, stack, "Ledger", ministack) as emulator:
        (address / "Ledger").write_text(emulator.endpoint)
        yield emulator


@pytest.fixture(scope="session")
def work(cpu: Image, contents: dict[str, int], stack: Stack, address: Path, ministack: MiniStack) -> Iterator[Emulator]:
    """The one that executes shards and messages."""
    with environment(cpu, stack, "Work", ministack) as emulator:
        (address / "Work").write_text(emulator.endpoint)
        yield emulator


@pytest.fixture(scope="session")
def make_key(stack: Stack, ministack: MiniStack) -> Callable[[str], str]:
    """A new inference key of an account, made as an operator makes it."""

    def make(account: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "handler.billing.keys", "create", "--account", account, "--role", "inference"],
            cwd=REPOSITORY,
            env=ministack.env | {"KEYS_TABLE": stack.outputs["KeysTable"]},
            capture_output=True,
            text=True,
            check=True,
        )
        [key] = re.findall(r"^sk-\S+$", done.stdout, re.MULTILINE)
        return str(key)

    return make
