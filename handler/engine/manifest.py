"""What a model layer is: the folder's `manifest.json` and its check against the files. Standard library only.

A layer is a folder with `manifest.json`, `model.onnx` (the graph), `weights.bin` (its external data, page-aligned),
`tokenizer.json`, `reference.npz` (texts and unquantized vectors that the recorded parity was measured on) and, where
the model has them, `heads.onnx` (from `token_states` to `sparse` and `multi_vector`). For a faster start it has
`packed.onnx` (the graph with int8 matrices as onnxruntime reads them, also in `weights.bin`) and of a large vocabulary
`unigram.json` (a form that is read at once); for CUDA `fp32.onnx` (the graph in fp32 arithmetic, on the same weights);
and `cl100k_base.tiktoken`, if it was not built without.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

NAME = "manifest.json"
FORMAT = 5
GRAPH, WEIGHTS, TOKENIZER = "model.onnx", "weights.bin", "tokenizer.json"
PACKED, UNIGRAM, FP32 = "packed.onnx", "unigram.json", "fp32.onnx"
CL100K = "cl100k_base.tiktoken"
LATEST = 253_402_300_799  # Unix seconds of the last moment that Python has a date for


class LayerError(Exception):
    """The layer is missing, damaged or of another kind than this machine can serve; the message says what to do."""


@dataclass(frozen=True)
class File:
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Facts of a layer. `context` counts the special tokens; `parity` is measured against `reference.npz`."""

    id: str
    aliases: tuple[str, ...]
    owned_by: str
    description: str
    weights: str  # "real", or "seeded": the vectors mean nothing
    licence: str  # of weights and tokenizer
    cl100k_licence: str | None  # of the vocabulary of OpenAI's token ids, where the layer holds it
    source: str
    revision: str | None
    created: int  # Unix seconds
    dimensions: int
    context: int
    special_tokens: int  # how many the template puts around a text
    control_ids: tuple[int, ...]  # pieces that no text can reach and no sparse output holds
    vocabulary: int
    layers: int
    pooling: str  # "cls" or "mean"
    outputs: tuple[str, ...]  # "dense" and what else can be fetched
    asked: str  # of the build, for a CPU --precision: "int8", "mixed" or "fp32"; for CUDA --weights: "fp16" or "int8"
    precision: str  # what came of it: "int8" or "fp32"; "fp16" or, of the weights alone, "int8"
    float32: tuple[str, ...]  # matrices of an int8 layer that are left in float32
    activation_scales: str | None  # of an int8 CPU layer: "static", calibrated, or "dynamic", by what shares a run
    target: str  # "cpu" or "cuda"
    onnxruntime: str  # version it was verified with
    cpu: tuple[str, ...]  # CPU features that `packed.onnx` needs, beside that version; empty without it
    parity: dict[str, float]
    files: dict[str, File]
    sources: dict[str, str]  # SHA-256 of the files it was made of
    unpinned: tuple[str, ...]  # those of them that no pin of the catalog confirmed
    format: int = FORMAT

    @property
    def content_tokens(self) -> int:
        """The longest text, in tokens without the specials."""
        return self.context - self.special_tokens

    def save(self, folder: Path) -> None:
        (folder / NAME).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder: Path) -> Manifest:
    """The manifest of a layer. Raises LayerError where there is none, or one of another format or with fields that are
    not of their types."""
    try:
        values: Any = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LayerError(
            f"No model layer in {folder}. Build one with `python -m model_layer build`, or point MODEL_DIR at one."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise LayerError(f"{folder / NAME} cannot be read: {error}. Build the layer again.") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise LayerError(f"{folder} has not the layer format {FORMAT}, which this version reads. Build it again.")
    try:
        facts: Manifest = _typed(values, Manifest, NAME)
        if not 0 <= facts.created <= LATEST:
            raise TypeError(f"created is {facts.created}, which is no time")
    except TypeError as error:
        raise LayerError(f"{folder / NAME} is not a manifest: {error}. Build the layer again.") from None
    return facts


def _typed(value: Any, kind: Any, name: str) -> Any:
    """What JSON has for a field of this type. Raises TypeError with the field's name."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:  # something or None
        return None if value is None else _typed(value, parts[0], name)
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(each, parts[0], name) for each in value)
    if origin is dict and isinstance(value, dict):
        return {key: _typed(each, parts[1], f"{name}.{key}") for key, each in value.items()}
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        kinds = {field.name: field.type for field in fields(kind)}
        if odd := kinds.keys() ^ value.keys():
            raise TypeError(f"{', '.join(sorted(odd))} of {name} is missing or unknown")
        return kind(**{key: _typed(value[key], each, key) for key, each in kinds.items()})
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise TypeError(f"{name} is {value!r}")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def faults(manifest: Manifest, folder: Path, *, hashes: bool) -> Iterator[str]:
    """What in the folder differs from the manifest, a sentence each: missing files, sizes and, if asked, SHA-256."""
    for name in (GRAPH, WEIGHTS, TOKENIZER):
        if name not in manifest.files:
            yield f"the manifest does not list {name}"
    for name, file in manifest.files.items():
        path = folder / name
        if Path(name).name != name:
            yield f"{name!r} is no name of a file"
        elif not path.is_file():
            yield f"{name} is missing"
        elif (size := path.stat().st_size) != file.bytes:
            yield f"{name} has {size} bytes, the manifest says {file.bytes}"
        elif hashes and sha256(path) != file.sha256:
            yield f"{name} has another SHA-256 than the manifest"


def check(manifest: Manifest, folder: Path, *, hashes: bool) -> None:
    """Raise LayerError if the folder is not what its manifest says."""
    if found := list(faults(manifest, folder, hashes=hashes)):
        raise LayerError(f"The layer in {folder} does not match its manifest: {'; '.join(found)}. Build it again.")
