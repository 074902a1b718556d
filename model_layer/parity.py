"""How exact a layer is: its vectors against those of the unquantized graph, kept in the layer as `reference.npz`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_layer.catalog import Texts, Thresholds
from model_layer.run import Outputs

Matrix = npt.NDArray[np.float32]
REFERENCE = "reference.npz"

_TOP = 10  # sparse terms of a text, by weight, that the overlap looks at


def texts(wanted: Texts) -> list[str]:
    """Lines of the builder's own texts. Files named `pairs` have two lines on one matter each."""
    folder = Path(__file__).parent / "texts"
    files = [(folder / f"{name}.txt").read_text(encoding="utf-8").splitlines() for name in wanted.files]
    return [line for lines in files for line in lines[: wanted.count]]


def save_reference(path: Path, inputs: Sequence[str], reference: Outputs) -> None:
    """Plain arrays, which numpy loads without running anything: texts as UTF-8 JSON, sparse terms in one row."""
    pairs = [pair for each in reference.sparse for pair in each.items()]
    with path.open("wb") as file:
        np.savez(
            file,
            texts=np.frombuffer(json.dumps(list(inputs), ensure_ascii=False).encode(), np.uint8),
            dense=reference.dense,
            sparse_counts=np.array([len(each) for each in reference.sparse], np.int64),
            sparse_ids=np.array([token for token, _ in pairs], np.int64),
            sparse_weights=np.array([weight for _, weight in pairs], np.float32),
        )


def load_reference(path: Path) -> tuple[list[str], Outputs]:
    with np.load(path, allow_pickle=False) as kept:
        inputs: list[str] = json.loads(kept["texts"].tobytes())
        pairs = iter(zip(kept["sparse_ids"].tolist(), kept["sparse_weights"].tolist(), strict=True))
        sparse = [dict(next(pairs) for _ in range(count)) for count in kept["sparse_counts"].tolist()]
        return inputs, Outputs(kept["dense"], sparse)


def figures(found: Outputs, reference: Outputs) -> dict[str, float]:
    """Figures of the manifest, of `texts` texts:

    `mean_cosine`, `percentile_cosine` (the 1st percentile) and `least_cosine` of each text's dense vectors;
    `spearman`, the rank correlation of the dot products of all pairs of texts; `neighbours`, the share of texts whose
    nearest neighbour is the same text; `sparse_overlap`, the mean share of each text's ten strongest terms in common.
    """
    vectors, theirs = found.dense, reference.dense
    cosines = np.einsum("ij,ij->i", vectors.astype(np.float64), theirs.astype(np.float64))
    products = [each @ each.T for each in (vectors, theirs)]
    upper = np.triu_indices(len(vectors), 1)
    nearest = []
    for each in products:
        each = each.copy()
        np.fill_diagonal(each, -np.inf)
        nearest.append(each.argmax(axis=1))
    measured = {
        "texts": float(len(vectors)),
        "mean_cosine": float(cosines.mean()),
        "percentile_cosine": float(np.percentile(cosines, 1)),
        "least_cosine": float(cosines.min()),
        "spearman": float(np.corrcoef([_ranks(each[upper]) for each in products])[0, 1]),
        "neighbours": float((nearest[0] == nearest[1]).mean()),
    }
    if reference.sparse:
        shares = [_overlap(ours, other) for ours, other in zip(found.sparse, reference.sparse, strict=True)]
        measured["sparse_overlap"] = float(np.mean(shares))
    return {name: round(value, 6) for name, value in measured.items()}


def _ranks(values: Matrix) -> npt.NDArray[np.float64]:
    ranks = np.empty(len(values))
    ranks[values.argsort()] = np.arange(len(values))
    return ranks


def _overlap(ours: dict[int, float], theirs: dict[int, float]) -> float:
    strongest = [set(sorted(each, key=lambda token: -each[token])[:_TOP]) for each in (ours, theirs)]
    return len(strongest[0] & strongest[1]) / len(strongest[1]) if strongest[1] else 1.0


def shortfalls(measured: dict[str, float], thresholds: Thresholds) -> Iterator[str]:
    """The figures that are below their thresholds, a sentence each."""
    for name, least in asdict(thresholds).items():
        figure = measured.get(name, float("nan"))
        if least is not None and not figure >= least:
            yield f"{name} is {figure}, at least {least} is required"
