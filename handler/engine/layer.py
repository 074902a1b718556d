"""Open a model layer: read its manifest and refuse what this function cannot serve."""

from dataclasses import dataclass
from pathlib import Path

from handler.engine import manifest
from handler.engine.manifest import LayerError, Manifest
from handler.settings import Settings

TARGET = "cpu"


@dataclass(frozen=True)
class Layer:
    folder: Path
    manifest: Manifest


def open_layer(settings: Settings) -> Layer:
    """The layer in MODEL_DIR, its files compared with its manifest as MODEL_CHECK says. Raises LayerError."""
    folder = Path(settings.model_dir)
    facts = manifest.load(folder)
    manifest.check(facts, folder, hashes=settings.model_check == "hashes")
    if facts.target != TARGET:
        raise LayerError(f"The layer in {folder} is for {facts.target}, this function serves {TARGET} layers.")
    return Layer(folder, facts)
