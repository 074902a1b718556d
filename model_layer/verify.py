"""How exact a layer is: its vectors against those of the unquantized graph, kept in the layer as `reference.npz`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from handler.engine import manifest
from model_layer import graph, run
from model_layer.catalog import MODELS, Thresholds

Matrix = npt.NDArray[np.float32]
TOKENIZER, REFERENCE = "tokenizer.json", "reference.npz"

# A layer that was verified on another CPU may differ by that CPU's products; by more, something is wrong with it.
DRIFT = 0.002


def texts(name: str, count: int) -> list[str]:
    """The first lines of one of the builder's own texts: `calibration` or `pairs` (two lines on one matter each)."""
    return (Path(__file__).parent / f"texts/{name}.txt").read_text(encoding="utf-8").splitlines()[:count]


def save_reference(path: Path, inputs: Sequence[str], vectors: Matrix) -> None:
    with path.open("wb") as file:
        np.savez(file, texts=np.array(inputs), vectors=vectors)


def parity(vectors: Matrix, reference: Matrix) -> dict[str, float]:
    """Figures of the manifest: `texts`, `mean_cosine`, `least_cosine` and `neighbours`, the share of texts whose
    nearest neighbour (largest dot product among the other texts) is the same text in both."""
    cosines = np.einsum("ij,ij->i", vectors.astype(np.float64), reference.astype(np.float64))
    same = _nearest(vectors) == _nearest(reference)
    return {
        "texts": float(len(vectors)),
        "mean_cosine": round(float(cosines.mean()), 6),
        "least_cosine": round(float(cosines.min()), 6),
        "neighbours": round(float(same.mean()), 4),
    }


def _nearest(vectors: Matrix) -> npt.NDArray[np.int64]:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    nearest: npt.NDArray[np.int64] = similarity.argmax(axis=1)
    return nearest


def shortfalls(figures: dict[str, float], thresholds: Thresholds) -> Iterator[str]:
    for name in ("mean_cosine", "neighbours"):
        least = getattr(thresholds, name)
        if not figures[name] >= least:
            yield f"{name} is {figures[name]}, at least {least} is required"


def faults(folder: Path) -> tuple[list[str], dict[str, float]]:
    """What is wrong with a finished layer, a sentence each, and its parity measured anew (empty if files are wrong).

    Every file is hashed, every vector of the reference is made again. Raises manifest.LayerError without a manifest.
    """
    facts = manifest.load(folder)
    if found := list(manifest.faults(facts, folder, hashes=True)):
        return found, {}
    with np.load(folder / REFERENCE) as kept:
        inputs = [str(text) for text in kept["texts"]]
        figures = parity(run.embed(folder / graph.GRAPH, folder / TOKENIZER, inputs), kept["vectors"])
    if facts.id in MODELS:
        found += shortfalls(figures, MODELS[facts.id].thresholds)
    for name in ("mean_cosine", "least_cosine"):
        if abs(figures[name] - facts.parity[name]) > DRIFT:
            found.append(f"{name} is {figures[name]}, the manifest recorded {facts.parity[name]}")
    return found, figures
