"""Open a model layer: read its manifest and refuse what this function cannot serve."""

from dataclasses import dataclass
from pathlib import Path

from handler.engine import gpu, manifest
from handler.engine.manifest import LayerError, Manifest
from handler.engine.targets import TARGETS
from handler.settings import Settings


@dataclass(frozen=True)
class Layer:
    folder: Path
    manifest: Manifest


def open_layer(settings: Settings) -> Layer:
    """The layer in MODEL_DIR, its files compared with its manifest as MODEL_CHECK says. Raises LayerError, also where
    it is for a GPU and there is none, or for a CPU where REQUIRE_GPU promises one."""
    folder = Path(settings.model_dir)
    facts = manifest.load(folder)
    manifest.check(facts, folder, hashes=settings.model_check == "hashes")
    if facts.target not in TARGETS:
        raise LayerError(
            f"The layer in {folder} is for {facts.target}, this version serves {' and '.join(TARGETS)} layers."
        )
    build = f"python -m model_layer build {facts.id}"
    if facts.target == "cuda":
        try:
            gpu.find()
        except LayerError as error:
            raise LayerError(
                f"The layer in {folder} is for a GPU, and {error}. Run it where there is one, or build the CPU's with "
                f"`{build}`."
            ) from None
    elif settings.require_gpu:
        raise LayerError(
            f"The layer in {folder} is for a CPU, and REQUIRE_GPU=1 promises a GPU. Build the GPU's with "
            f"`{build} --target cuda`, or serve this one without REQUIRE_GPU."
        )
    return Layer(folder, facts)
