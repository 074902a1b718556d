"""The image that `sam build` makes: the Dockerfile's steps are carried out in a folder, the function runs from there.

Not proven here, for want of Docker: the base image itself. The steps run with this machine's Python; where that lies in
a folder closed to others, the function keeps the right to read any file, so that a look at every file's mode
stands for what Lambda's user could not read.
"""

import base64
import contextlib
import gzip
import importlib.util
import json
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handler.engine import manifest
from tests.deploy import size
from tests.deploy.conftest import MODEL, REPOSITORY, mtimes
from tests.stack import image
from tests.stack.cloudformation import Stack
from tests.stack.emulator import Emulator, FunctionError
from tests.stack.image import Image
from tests.stack.ministack import MiniStack
from tests.stack.process import Process, free_port


def event(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REPOSITORY / "events" / f"{name}.json").read_text())
    return found


def below(root: Path) -> dict[str, Path]:
    """Every file and folder below a root, by its path from there."""
    return {str(path.relative_to(root)): path for path in root.rglob("*")}


def test_every_stage_is_on_awss_own_python_and_those_for_gpus_come_last() -> None:
    """The classic builder makes all stages before the one that it is asked for."""
    stages = list(image.stages(REPOSITORY / "Dockerfile").values())

    assert [each.name for each in stages] == ["function", "code", "builder", "layer", "cpu", "layer-gpu", "gpu"]
    assert all(each.base.endswith(f"/lambda/python:{size.PYTHON}") for each in stages)


def test_a_layer_that_was_built_outside_is_taken(images: dict[str, Image], minilm: Path) -> None:
    assert "there already" in images["layer"].log
    assert below(images["layer"].outside("/layer")).keys() == below(minilm).keys()


def test_new_code_does_not_make_a_new_layer(images: dict[str, Image]) -> None:
    seen = {path for path in below(images["layer"].outside("/build/handler")) if path.endswith(".py")}

    assert seen == {"__init__.py", "engine/__init__.py", "engine/manifest.py", "engine/packing.py"}


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_model_comes_first_then_the_packages_then_the_code(target: str) -> None:
    stage = image.stages(REPOSITORY / "Dockerfile")[target]
    steps = [each.text for each in stage.instructions if each.keyword in ("COPY", "RUN")]

    positions = [min(i for i, step in enumerate(steps) if part in step) for part in ("/opt/model/", "pip", "handler/")]

    assert positions[0] == 0
    assert positions == sorted(positions)
    assert not any("/opt/model" in step for step in steps[1:]), "a later step on the model stores it a second time"


def test_the_image_holds_the_model_layer_whole(cpu: Image) -> None:
    layer = cpu.outside(cpu.env["MODEL_DIR"])
    facts = manifest.load(layer)

    assert facts.id == MODEL
    manifest.check(facts, layer, hashes=True)


@pytest.mark.parametrize("lock", ["requirements.cpu.lock", "requirements.gpu.lock", "requirements.build.lock"])
def test_every_package_of_a_lock_has_a_wheel_for_the_images_python(lock: str, tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    options = f"--dry-run --only-binary :all: --require-hashes --requirements {lock} --target {tmp_path}"
    platform = f"--python-version {size.PYTHON} --python-platform {size.GLIBC}"
    command = [str(uv), "pip", "install", *options.split(), *platform.split()]

    for extra in (["--offline"], []):  # the second only where uv's cache does not know them yet
        done = subprocess.run([*command, *extra], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break

    assert done.returncode == 0, done.stderr


def test_every_module_is_there_as_bytecode_that_is_taken_whatever_its_date(cpu: Image) -> None:
    modules = list(cpu.outside("/var/task/handler").rglob("*.py"))

    assert modules
    for module in modules:
        compiled = Path(importlib.util.cache_from_source(str(module))).read_bytes()
        assert int.from_bytes(compiled[4:8], "little") == 0b01, "by hash, and unchecked (PEP 552)"
        assert compiled[8:16] == importlib.util.source_hash(module.read_bytes()), module


def test_everyone_may_read_every_file_of_the_image(cpu: Image) -> None:
    wanted = {True: stat.S_IROTH | stat.S_IXOTH, False: stat.S_IROTH}  # of a folder, of a file
    modes = {name: path.stat().st_mode for name, path in below(cpu.root).items() if not path.is_symlink()}
    closed = [name for name, mode in modes.items() if ~mode & wanted[stat.S_ISDIR(mode)]]

    assert closed == []
    assert cpu.outside("/entry.sh").stat().st_mode & 0o777 == 0o755


def test_what_docker_is_sent_is_the_code_the_locks_and_finished_layers(tmp_path: Path) -> None:
    kept = ["handler/entry.py", "model_layer/build.py", "model_layer/out/m/weights.bin", "requirements.cpu.lock"]
    left = [
        ".env",
        ".git/config",
        ".mypy_cache/a.json",
        ".venv/bin/python",
        ".venv-ministack/bin/python",
        "handler/__pycache__/entry.cpython-313.pyc",
        "model_layer/__pycache__/build.cpython-313.pyc",
        "model_layer/out/sources/model.safetensors",
        "model_layer/out/.m-1a2b3c/layer/weights.bin",
        "samconfig.toml",
        "tests/conftest.py",
    ]
    for path in (*kept, *left, "Dockerfile"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()

    sent = image.sent(tmp_path, image.ignored(REPOSITORY))

    assert {path for path in sent if (tmp_path / path).is_file()} == {*kept, "Dockerfile"}
    assert not [path for path in sent if path.startswith(("tests", ".venv", ".git", "model_layer/out/sources"))]


def test_the_function_embeds(function: Emulator, make_key: Callable[[str], str]) -> None:
    request = event("function-url")
    request["headers"]["authorization"] = f"Bearer {make_key('acct_image')}"

    answer = function.invoke(request)

    assert answer["statusCode"] == 200, answer
    body = json.loads(gzip.decompress(base64.b64decode(answer["body"])))  # the event's SDK takes it so
    [embedding] = [each["embedding"] for each in body["data"]]
    assert body["model"] == MODEL
    assert len(embedding) == 384
    assert sum(number * number for number in embedding) == pytest.approx(1, abs=1e-5)


def test_the_function_lists_its_model(function: Emulator, make_key: Callable[[str], str]) -> None:
    request = event("function-url-models")
    request["headers"]["authorization"] = f"Bearer {make_key('acct_image')}"

    answer = function.invoke(request)

    assert answer["statusCode"] == 200, answer
    assert [each["id"] for each in json.loads(answer["body"])["data"]] == [MODEL]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sqs", "SQS"), ("s3", "S3"), ("dynamodb-stream", "DynamoDB"), ("schedule", "schedule")],
)
def test_an_event_of_a_kind_to_come_is_refused_by_its_name(function: Emulator, name: str, kind: str) -> None:
    with pytest.raises(FunctionError) as refused:
        function.invoke(event(name))

    assert kind.lower() in refused.value.error_message.lower()


def test_text_beyond_ascii_leaves_the_function_as_it_is(function: Emulator, make_key: Callable[[str], str]) -> None:
    """Escaped, each such character would take six bytes of Lambda's six MB."""
    request = event("function-url")
    request["headers"]["authorization"] = f"Bearer {make_key('acct_image')}"
    request["body"] = json.dumps({"model": "模型", "input": "text"})
    call = urllib.request.Request(function.endpoint, json.dumps(request).encode(), {"content-type": "application/json"})

    with urllib.request.urlopen(call) as response:
        answer = response.read()

    assert "模型".encode() in answer


def test_the_function_leaves_the_image_as_it_was(function: Emulator, cpu: Image, contents: dict[str, int]) -> None:
    """Lambda's disk is read-only but for /tmp."""
    with contextlib.suppress(FunctionError):
        function.invoke(event("sqs"))

    assert mtimes(cpu.root) == contents


def test_no_program_in_the_image_leaves_anything_behind(cpu: Image, contents: dict[str, int]) -> None:
    """Not even one that does not know of onnxruntime's telemetry. What must be written has a place: HOME."""
    program = "import onnxruntime, pathlib, sys; print(sys.dont_write_bytecode, pathlib.Path.home())"

    done = subprocess.run(
        image.unprivileged([str(cpu.outside("/var/lang/bin/python")), "-c", program]),
        cwd=cpu.outside("."),
        env=cpu.environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == ["True", str(cpu.outside("/tmp"))]
    assert mtimes(cpu.root) == contents


@pytest.mark.parametrize("arguments", [[], ["serve"]])
def test_outside_lambda_the_entry_point_is_an_http_server_until_sigterm(
    cpu: Image, stack: Stack, ministack: MiniStack, arguments: list[str], tmp_path: Path
) -> None:
    port = free_port()
    tables = {"KEYS_TABLE": stack.outputs["KeysTable"], "USAGE_TABLE": stack.outputs["UsageTable"]}
    command = image.unprivileged([str(cpu.outside(word)) for word in cpu.entrypoint] + arguments)
    env = {**cpu.environment(), **ministack.env, **tables, "PORT": str(port)}

    server = Process(command, env, cpu.outside("."), tmp_path / "log", f"http://127.0.0.1:{port}/ready")
    server.stop()

    assert "Application shutdown complete" in server.log
