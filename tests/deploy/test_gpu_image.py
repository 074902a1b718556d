"""The image for GPUs: what can be told of it without a gigabyte of CUDA and a GPU, and without Docker.

Not proven here: that the CUDA wheels run on AWS's base image, and that Lambda's host brings its driver where AWS's own
images look for it (aws/deep-learning-containers, docker/lambda). That a CPU's image runs is test_dockerfile.py's, and
the stages are the same but for the layer, the lock and the environment that are looked at here.
"""

import re
from pathlib import Path

import pytest

from handler.engine import manifest
from model_layer.catalog import MODELS
from tests.deploy import size
from tests.deploy.conftest import REPOSITORY
from tests.stack import image
from tests.stack.image import BASE_ENV, Stage

PIN = re.compile(r"^(\S+?)==(\S+)", re.MULTILINE)


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return image.stages(REPOSITORY / "Dockerfile")


def test_both_kinds_of_image_differ_in_layer_lock_and_environment_alone(stages: dict[str, Stage]) -> None:
    cpu, gpu = ([(each.keyword, each.text) for each in stages[name].instructions] for name in ("cpu", "gpu"))

    renamed = [(keyword, text.replace("=layer ", "=layer-gpu ").replace(".cpu.", ".gpu.")) for keyword, text in cpu]
    assert gpu[:-1] == renamed
    assert gpu[-1][0] == "ENV"


def test_the_drivers_of_lambda_and_of_other_hosts_are_found_after_the_images_own_libraries(
    stages: dict[str, Stage],
) -> None:
    env = image.declared(stages["gpu"]).env

    assert env["LD_LIBRARY_PATH"].split(":") == [
        BASE_ENV["LD_LIBRARY_PATH"],
        "/x86_64-bottlerocket-linux-gnu/sys-root/usr/lib/nvidia",
        "/usr/local/nvidia/lib64",
    ]
    assert (env["NVIDIA_VISIBLE_DEVICES"], env["NVIDIA_DRIVER_CAPABILITIES"]) == ("all", "compute,utility")
    assert env["REQUIRE_GPU"] == "1", "a host without one is told so at the start"


def test_what_must_be_written_has_a_place_in_tmp(stages: dict[str, Stage]) -> None:
    """On Managed Instances the function runs without USER and HOME, and the disk is read-only but for /tmp."""
    cpu, gpu = (image.declared(stages[name]) for name in ("cpu", "gpu"))

    assert gpu.env["HOME"] == "/tmp"
    assert gpu.env["XDG_CACHE_HOME"].startswith("/tmp/")
    assert gpu.env["USER"]
    assert (gpu.entrypoint, gpu.workdir) == (cpu.entrypoint, cpu.workdir) == (("/entry.sh",), "/var/task")


def pins(lock: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, version in PIN.findall((REPOSITORY / lock).read_text()):
        found.setdefault(name, set()).add(version)
    return found


def test_the_lock_has_the_cpus_packages_with_onnxruntime_for_cuda_and_no_more_of_cuda_than_that_links() -> None:
    cpu, gpu = pins("requirements.cpu.lock"), pins("requirements.gpu.lock")

    assert "onnxruntime" not in gpu, "beside onnxruntime-gpu it would be the one that is imported"
    assert gpu["onnxruntime-gpu"] == cpu.pop("onnxruntime"), "a layer names the version that it was verified with"
    assert {name: gpu[name] for name in cpu} == cpu
    assert gpu.keys() - cpu.keys() == {
        "onnxruntime-gpu",
        "nvidia-cublas",
        "nvidia-cuda-nvrtc",  # cuBLAS opens it for kernels that it compiles itself, and asks pip for it
        "nvidia-cuda-runtime",
        "nvidia-curand",
    }


def test_the_lock_has_a_hash_of_every_package_and_no_address() -> None:
    text = (REPOSITORY / "requirements.gpu.lock").read_text()

    assert "://" not in text
    assert "#" not in text
    assert all(" \\\n    --hash=sha256:" in each for each in re.split(r"^(?=\S)", text, flags=re.MULTILINE) if each)


def test_the_layer_is_built_for_cuda_and_taken_by_the_name_that_the_builder_gives_it(stages: dict[str, Stage]) -> None:
    arguments = dict(each.text.split("=", 1) for each in stages["layer-gpu"].instructions if each.keyword == "ARG")
    [line] = [each.text for each in stages["layer-gpu"].instructions if "model_layer build" in each.text]

    assert arguments["MODEL"] in MODELS
    assert 'build "$MODEL" --target cuda --weights "$WEIGHTS" --cl100k "$CL100K" --if-absent &&' in line
    assert 'case "$WEIGHTS" in fp16) name="$MODEL-cuda" ;; *) name="$MODEL-cuda-$WEIGHTS" ;; esac' in line


def test_a_layers_size_is_told_by_its_models_geometry(minilm: Path) -> None:
    fp32 = manifest.load(minilm.with_name(f"{minilm.name}-fp32")).files[manifest.WEIGHTS].bytes
    matrices, vectors = size.parameters(MODELS["all-minilm-l6-v2"].geometry)

    assert fp32 == pytest.approx(4 * (matrices + vectors), rel=0.01)
    assert size.of_layer("bge-m3", "fp16") == pytest.approx(1.135e9, rel=0.05)
    assert size.of_layer("bge-m3", "int8") == pytest.approx(0.568e9, rel=0.1)


def test_the_size_is_that_of_all_its_parts_and_one_that_lambda_refuses_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(size, "of_packages", lambda _: {"nvidia": 8_000_000_000})
    assert size.main([]) == 0
    assert re.search(r"nvidia +8,000 MB\n.*together +9,1\d\d MB", capsys.readouterr().out, re.DOTALL)
    monkeypatch.setattr(size, "of_packages", lambda _: {"nvidia": 9_000_000_000})
    assert size.main([]) == 1
