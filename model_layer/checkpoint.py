"""A model's files as its authors publish them: a folder with weights, configuration and tokenizer, read with care."""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_layer import torchfile
from model_layer.catalog import Model

Array = npt.NDArray[np.float32]

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
CONFIG, POOLING = "config.json", "1_Pooling/config.json"
HEADS = {"sparse_linear": "sparse_linear.pt", "colbert_linear": "colbert_linear.pt"}

# What config.json calls the parts of a geometry.
_CONFIG = {
    "vocab_size": "vocabulary",
    "hidden_size": "hidden",
    "num_attention_heads": "heads",
    "intermediate_size": "intermediate",
    "num_hidden_layers": "layers",
    "max_position_embeddings": "positions",
    "layer_norm_eps": "norm_epsilon",
}


class SourceError(Exception):
    """A model's files are missing, damaged or not those of the model; the message says which and what to do."""


def files(pins: Mapping[str, str | None], there: Callable[[str], bool]) -> dict[str, str | None]:
    """The files that a checkpoint is read from, each with its pin: the catalog's, but where torch's weights are not
    there and safetensors' are, those, which are of somebody's own making: no pin is known for them."""
    instead = not there(TORCH) and there(SAFETENSORS)
    return dict((SAFETENSORS, None) if instead and name == TORCH else (name, pin) for name, pin in pins.items())


@dataclass(frozen=True)
class Provenance:
    """SHA-256 of the files a layer was made of, and which of them no pin of the catalog confirmed."""

    files: dict[str, str]
    unpinned: tuple[str, ...]


def provenance(model: Model, found: Mapping[str, str]) -> Provenance:
    """Of a layer made of files with these SHA-256, if those that are pinned have that of their pin."""
    pins = files(model.origin.files, found.__contains__) if model.origin else {}
    unpinned = tuple(name for name, pin in pins.items() if pin is None)
    return Provenance({name: pin or found.get(name, "") for name, pin in pins.items()}, unpinned)


class Checkpoint:
    """The arrays, by Hugging Face's names (a head's by its file's name and `.weight` or `.bias`), and the tokenizer.

    Of the folder's files those of these names are read and no others, whatever else lies there.
    """

    def __init__(self, folder: Path, names: Collection[str], model: Model) -> None:
        self.folder = folder
        if CONFIG in names:
            self._compare_config(model)
        if POOLING in names:
            self._compare_pooling(model)
        self._arrays = _torch(folder / TORCH) if TORCH in names else _safetensors(folder / SAFETENSORS)
        if model.heads:
            for head, name in HEADS.items():
                self._arrays |= {f"{head}.{part}": array for part, array in _torch(folder / name).items()}

    def tensor(self, name: str, *shape: int) -> Array:
        """float32, of this shape, every number finite. Raises SourceError."""
        if name not in self._arrays:
            raise SourceError(f"{self.folder} has no tensor {name}: it is not this model's checkpoint.")
        array = np.asarray(self._arrays[name])
        if array.shape != shape:
            raise SourceError(
                f"{name} in {self.folder} has shape {array.shape}, expected {shape}: it is another model's."
            )
        found: Array = array.astype(np.float32)
        if not np.isfinite([found.min(), found.max()]).all():  # either is NaN if any number is
            raise SourceError(f"{name} in {self.folder} holds NaN or infinity: its file is damaged. Fetch it again.")
        return found

    def tokenizer(self) -> str:
        return json.dumps(_json(self.folder / "tokenizer.json"), ensure_ascii=False)

    def _compare_config(self, model: Model) -> None:
        config = _json(self.folder / CONFIG)
        for name, part in _CONFIG.items():
            expected = getattr(model.geometry, part)
            if config.get(name) != expected:
                raise SourceError(
                    f"{self.folder / 'config.json'} says {name} {config.get(name)}, {model.id} has {expected}."
                )
        for name, only in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
            if config.get(name, "absolute") != only:
                raise SourceError(f"{self.folder / 'config.json'} says {name} {config.get(name)}, not {only}.")
        first = model.geometry.first_position
        if first and config.get("pad_token_id") != first - 1:  # RoBERTa's positions start behind that of padding
            padding = config.get("pad_token_id")
            raise SourceError(
                f"{self.folder / 'config.json'} says pad_token_id {padding}, so that text starts at position "
                f"{padding + 1 if isinstance(padding, int) else 'unknown'}, {model.id}'s at {first}."
            )

    def _compare_pooling(self, model: Model) -> None:
        path = self.folder / POOLING
        if not _json(path).get(f"pooling_mode_{model.pooling}{_TOKENS[model.pooling]}"):
            raise SourceError(f"{path} does not say {model.pooling} pooling, which {model.id} has.")


# sentence-transformers writes pooling_mode_cls_token and pooling_mode_mean_tokens.
_TOKENS = {"cls": "_token", "mean": "_tokens"}


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read: {error}. Fetch it again.") from None
    if not isinstance(values, dict):
        raise SourceError(f"{path} holds no object. Fetch it again.")
    return values


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}. Fetch it again.") from None


def _torch(path: Path) -> dict[str, Any]:
    try:
        return torchfile.read(path)
    except FileNotFoundError:
        raise SourceError(f"{path} is missing. Fetch the whole repository.") from None
    except torchfile.TorchFileError as error:
        raise SourceError(str(error)) from None
