"""How exact a layer is: its vectors against those of the unquantized graph, kept in the layer as `reference.npz`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_layer import docstrings
from model_layer.catalog import Model, Texts, Thresholds
from model_layer.run import Outputs

Matrix = npt.NDArray[np.float32]
REFERENCE = "reference.npz"

_TOP = 10  # nearest texts, and sparse terms by weight, that a share in common is of
_SENTENCES = 3000
_OTHER = "docstrings."  # in front of the names of those figures


def inputs(model: Model) -> list[str]:
    """The texts that a layer of this model is verified on: the builder's own, then docstrings if they are judged."""
    return texts(model.verification) + (docstrings.sentences(_SENTENCES) if model.thresholds.docstrings else [])


def texts(wanted: Texts) -> list[str]:
    """Lines of the builder's own texts. Files named `pairs` have two lines on one matter each."""
    folder = Path(__file__).parent / "texts"
    files = [(folder / f"{name}.txt").read_text(encoding="utf-8").splitlines() for name in wanted.files]
    return [line for lines in files for line in lines[: wanted.count]]


def save_reference(path: Path, kept: Sequence[str], reference: Outputs) -> None:
    """Plain arrays, which numpy loads without running anything: texts as UTF-8 JSON, sparse terms in one row."""
    pairs = [pair for each in reference.sparse for pair in each.items()]
    with path.open("wb") as file:
        np.savez(
            file,
            texts=np.frombuffer(json.dumps(list(kept), ensure_ascii=False).encode(), np.uint8),
            dense=reference.dense,
            sparse_counts=np.array([len(each) for each in reference.sparse], np.int64),
            sparse_ids=np.array([token for token, _ in pairs], np.int64),
            sparse_weights=np.array([weight for _, weight in pairs], np.float32),
        )


def load_reference(path: Path) -> tuple[list[str], Outputs]:
    with np.load(path, allow_pickle=False) as kept:
        lines: list[str] = json.loads(kept["texts"].tobytes())
        pairs = iter(zip(kept["sparse_ids"].tolist(), kept["sparse_weights"].tolist(), strict=True))
        sparse = [dict(next(pairs) for _ in range(count)) for count in kept["sparse_counts"].tolist()]
        return lines, Outputs(kept["dense"], sparse)


def figures(found: Outputs, reference: Outputs, model: Model) -> dict[str, float]:
    """Figures of the manifest for the outputs of `inputs(model)`, of `texts` texts:

    `mean_cosine`, `percentile_cosine` (the 1st percentile) and `least_cosine` of each text's dense vectors;
    `spearman`, the rank correlation of the dot products of all pairs of texts; `neighbours`, the share of texts whose
    nearest neighbour is the same text; `top_ten`, the mean share of each text's ten nearest in common;
    `sparse_overlap`, that of its ten strongest terms. Those of docstrings have `docstrings.` before their names.
    """
    own = len(texts(model.verification))
    measured = _figures(found[:own], reference[:own])
    if model.thresholds.docstrings:
        others = _figures(found[own:], reference[own:])
        measured |= {f"{_OTHER}{name}": value for name, value in others.items()}
    return measured


def _figures(found: Outputs, reference: Outputs) -> dict[str, float]:
    vectors, theirs = found.dense, reference.dense
    cosines = np.einsum("ij,ij->i", vectors.astype(np.float64), theirs.astype(np.float64))
    products = [each @ each.T for each in (vectors, theirs)]
    upper = np.triu_indices(len(vectors), 1)
    spearman = float(np.corrcoef([_ranks(each[upper]) for each in products])[0, 1])
    for each in products:
        np.fill_diagonal(each, -np.inf)
    top = min(_TOP, len(vectors) - 1)
    nearest = [np.argsort(-each, axis=1)[:, :top] for each in products]
    shared = [
        len(set(ours) & set(others)) / top for ours, others in zip(*(each.tolist() for each in nearest), strict=True)
    ]
    measured = {
        "texts": float(len(vectors)),
        "mean_cosine": float(cosines.mean()),
        "percentile_cosine": float(np.percentile(cosines, 1)),
        "least_cosine": float(cosines.min()),
        "spearman": spearman,
        "neighbours": float((nearest[0][:, 0] == nearest[1][:, 0]).mean()),
        "top_ten": float(np.mean(shared)),
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


def shortfalls(measured: dict[str, float], thresholds: Thresholds, of: str = "") -> Iterator[str]:
    """The figures that are below their thresholds, a sentence each."""
    for name, least in ((f"{of}{each.name}", getattr(thresholds, each.name)) for each in fields(thresholds)):
        if isinstance(least, Thresholds):
            yield from shortfalls(measured, least, _OTHER)
        elif least is not None and not (figure := measured.get(name, float("nan"))) >= least:
            yield f"{name} is {figure}, at least {least} is required"
