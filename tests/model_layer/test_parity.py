"""The figures that a layer is judged by, on arrays made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_layer import parity
from model_layer.catalog import MODELS, Model, Texts, Thresholds
from model_layer.run import Outputs


def unit(rows: list[list[float]]) -> npt.NDArray[np.float32]:
    array = np.array(rows, np.float32)
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    return array


REFERENCE = unit([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.3]])


MODEL = replace(MODELS["bge-m3"], verification=Texts(("pairs",), 4))


def figures_of(found: Outputs, reference: Outputs, model: Model = MODEL) -> dict[str, float]:
    return parity.figures(found, reference, model)


def test_equal_vectors_have_perfect_figures() -> None:
    figures = figures_of(Outputs(REFERENCE, []), Outputs(REFERENCE, []))
    assert figures == {
        "texts": 4.0,
        "mean_cosine": 1.0,
        "percentile_cosine": 1.0,
        "least_cosine": 1.0,
        "spearman": 1.0,
        "neighbours": 1.0,
        "top_ten": 1.0,
    }


def test_each_figure_sees_what_it_is_for() -> None:
    turned = REFERENCE.copy()
    turned[3] = unit([[1, 0, 0.3]])[0]
    figures = figures_of(Outputs(turned, []), Outputs(REFERENCE, []))
    cosine = float(turned[3] @ REFERENCE[3])
    assert figures["least_cosine"] == pytest.approx(cosine, abs=1e-5)
    assert figures["mean_cosine"] == pytest.approx((3 + cosine) / 4, abs=1e-5)
    assert figures["least_cosine"] < figures["percentile_cosine"] < figures["mean_cosine"]
    assert figures["neighbours"] == 0.5, "the third and the fourth lost each other"
    assert figures["spearman"] < 0.7


def test_overlap_is_of_the_ten_strongest_terms() -> None:
    theirs = {token: 1.0 - token / 100 for token in range(20)}
    ours = {token: weight if token >= 5 else 0.001 for token, weight in theirs.items()}
    figures = figures_of(Outputs(REFERENCE, [ours] * 4), Outputs(REFERENCE, [theirs] * 4))
    assert figures["sparse_overlap"] == 0.5


def test_the_ten_nearest_count_however_they_are_ranked() -> None:
    rows = unit([[1, number / 20, 0] for number in range(20)])
    lost = rows.copy()
    lost[0] = unit([[0, 0, 1]])[0]
    figures = figures_of(Outputs(lost, []), Outputs(rows, []), replace(MODEL, verification=Texts(("pairs",), 20)))
    assert 0.8 < figures["top_ten"] < 1
    assert (
        figures_of(Outputs(rows, []), Outputs(rows, []), replace(MODEL, verification=Texts(("pairs",), 20)))["top_ten"]
        == 1
    )


def test_docstrings_are_measured_apart_where_they_are_judged() -> None:
    both = np.concatenate([REFERENCE, REFERENCE])
    spoilt = both.copy()
    spoilt[6:] = -spoilt[6:]
    model = replace(MODEL, thresholds=Thresholds(0.9, 0.9, None, None, docstrings=Thresholds(0.9, 0.9, 0.9, 0.9, 0.9)))
    figures = figures_of(Outputs(spoilt, []), Outputs(both, []), model)
    assert (figures["texts"], figures["mean_cosine"]) == (4, 1)
    assert (figures["docstrings.texts"], figures["docstrings.mean_cosine"]) == (4, 0)
    short = list(parity.shortfalls(figures, model.thresholds))
    assert short
    assert all(each.startswith("docstrings.") for each in short)
    assert len(parity.inputs(model)) == 4 + 3000
    assert len(set(parity.inputs(model)[4:])) == 3000


NAMES = ("mean_cosine", "percentile_cosine", "spearman", "neighbours", "top_ten", "sparse_overlap")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("of", ["", "docstrings."])
def test_every_threshold_is_judged(name: str, of: str) -> None:
    every = Thresholds(*[0.9] * 6)  # type: ignore[arg-type]
    thresholds = replace(every, docstrings=every)
    figures = {f"{of}{name}": 0.95 for name in NAMES for of in ("", "docstrings.")}
    assert list(parity.shortfalls(figures, thresholds)) == []
    for poor in (0.8999, float("nan")):
        assert list(parity.shortfalls(figures | {f"{of}{name}": poor}, thresholds)) == [
            f"{of}{name} is {poor}, at least 0.9 is required"
        ]


def test_a_reference_is_read_as_it_was_saved(tmp_path: Path) -> None:
    kept = Outputs(REFERENCE, [{3: 0.5, 9: 0.25}, {}, {1: 1.0}, {}])
    parity.save_reference(tmp_path / "reference.npz", ["a", "", "ü", "\n"], kept)
    texts, found = parity.load_reference(tmp_path / "reference.npz")
    assert texts == ["a", "", "ü", "\n"]
    assert (found.dense == kept.dense).all()
    assert found.sparse == kept.sparse
