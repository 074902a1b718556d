"""How large the image for GPUs is, uncompressed, and whether AWS Lambda takes it: 10 GB.

    python -m tests.deploy.size [--model bge-m3] [--weights fp16] [--lock requirements.gpu.lock]

Its packages are installed into a folder that is gone afterwards, as pip would for the image's Python; its layer is the
one in model_layer/out, or, where there is none, as many bytes as its weights have. AWS's base image is no part of it:
without its registry it cannot be looked at.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from model_layer.catalog import MODELS, Geometry

REPOSITORY = Path(__file__).parents[2]
MOST = 10 * 1000**3
PYTHON, GLIBC = "3.13", "x86_64-manylinux_2_34"  # of public.ecr.aws/lambda/python:3.13, Amazon Linux 2023
_WEIGHTS = {"fp16": 2, "int8": 1}  # bytes of a matrix's element


def parameters(geometry: Geometry) -> tuple[int, int]:
    """Elements of an encoder's matrices and tables, and of its vectors: biases and norms."""
    hidden, wide = geometry.hidden, geometry.intermediate
    tables = (geometry.vocabulary + geometry.positions + geometry.token_types) * hidden
    matrices = geometry.layers * (4 * hidden * hidden + 2 * hidden * wide)
    return tables + matrices, 2 * hidden + geometry.layers * (9 * hidden + wide)


def of_folder(folder: Path) -> int:
    """Bytes of the files below it; one that has several names counts once."""
    found = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return sum(found.values())


def of_layer(model: str, weights: str) -> int:
    """Bytes of the layer, or at least of its weights."""
    name = f"{model}-cuda" if weights == "fp16" else f"{model}-cuda-{weights}"
    if (folder := REPOSITORY / "model_layer/out" / name).is_dir():
        return of_folder(folder)
    matrices, vectors = parameters(MODELS[model].geometry)
    return matrices * _WEIGHTS[weights] + vectors * 4


def of_packages(lock: str) -> dict[str, int]:
    """Bytes of what a lock installs: those of NVIDIA, onnxruntime, all else."""
    uv = Path(sys.executable).with_name("uv")
    platform = ["--python-version", PYTHON, "--python-platform", GLIBC, "--only-binary", ":all:"]
    with tempfile.TemporaryDirectory(prefix="emblet-size-") as folder:
        options = ["--quiet", "--require-hashes", "--requirements", lock, "--compile-bytecode", "--target", folder]
        subprocess.run([uv, "pip", "install", *platform, *options], cwd=REPOSITORY, check=True)
        parts = {name: of_folder(Path(folder, name)) for name in ("nvidia", "onnxruntime")}
        return parts | {"other packages": of_folder(Path(folder)) - sum(parts.values())}


def lines(parts: dict[str, int]) -> Iterator[str]:
    for name, size in parts.items():
        yield f"{name:<15} {size / 1e6:8,.0f} MB"
    total = sum(parts.values())
    yield f"{'together':<15} {total / 1e6:8,.0f} MB, beside AWS's base image, of {MOST / 1e6:,.0f} MB that Lambda takes"


def main(arguments: list[str] | None = None) -> int:
    """0 where it fits, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.deploy.size", description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(MODELS), default="bge-m3")
    parser.add_argument("--weights", choices=_WEIGHTS, default="fp16")
    parser.add_argument("--lock", default="requirements.gpu.lock")
    asked = parser.parse_args(arguments)
    code = of_folder(REPOSITORY / "handler")
    parts = {"layer": of_layer(asked.model, asked.weights), **of_packages(asked.lock), "handler": code}
    print("\n".join(lines(parts)))
    return int(sum(parts.values()) > MOST)


if __name__ == "__main__":
    sys.exit(main())
