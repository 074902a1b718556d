"""The figures that a layer is judged by, on arrays made by hand."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from model_layer import parity
from model_layer.catalog import Thresholds
from model_layer.run import Outputs


def unit(rows: list[list[float]]) -> npt.NDArray[np.float32]:
    array = np.array(rows, np.float32)
    array /= np.linalg.norm(array, axis=1, keepdims=True)
    return array


REFERENCE = unit([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.3]])


def test_equal_vectors_have_perfect_figures() -> None:
    figures = parity.figures(Outputs(REFERENCE, []), Outputs(REFERENCE, []))
    assert figures == {
        "texts": 4.0,
        "mean_cosine": 1.0,
        "percentile_cosine": 1.0,
        "least_cosine": 1.0,
        "spearman": 1.0,
        "neighbours": 1.0,
    }


def test_each_figure_sees_what_it_is_for() -> None:
    turned = REFERENCE.copy()
    turned[3] = unit([[1, 0, 0.3]])[0]
    figures = parity.figures(Outputs(turned, []), Outputs(REFERENCE, []))
    cosine = float(turned[3] @ REFERENCE[3])
    assert figures["least_cosine"] == pytest.approx(cosine, abs=1e-5)
    assert figures["mean_cosine"] == pytest.approx((3 + cosine) / 4, abs=1e-5)
    assert figures["least_cosine"] < figures["percentile_cosine"] < figures["mean_cosine"]
    assert figures["neighbours"] == 0.5, "the third and the fourth lost each other"
    assert figures["spearman"] < 0.7


def test_overlap_is_of_the_ten_strongest_terms() -> None:
    theirs = {token: 1.0 - token / 100 for token in range(20)}
    ours = {token: weight if token >= 5 else 0.001 for token, weight in theirs.items()}
    figures = parity.figures(Outputs(REFERENCE, [ours] * 4), Outputs(REFERENCE, [theirs] * 4))
    assert figures["sparse_overlap"] == 0.5


@pytest.mark.parametrize("name", ["mean_cosine", "percentile_cosine", "spearman", "neighbours", "sparse_overlap"])
def test_every_threshold_is_judged(name: str) -> None:
    names = ("mean_cosine", "percentile_cosine", "spearman", "neighbours", "sparse_overlap")
    thresholds = Thresholds(*[0.9] * 5)
    figures = dict.fromkeys(names, 0.95)
    assert list(parity.shortfalls(figures, thresholds)) == []
    for poor in (0.8999, float("nan")):
        assert list(parity.shortfalls(figures | {name: poor}, thresholds)) == [
            f"{name} is {poor}, at least 0.9 is required"
        ]


def test_a_reference_is_read_as_it_was_saved(tmp_path: Path) -> None:
    kept = Outputs(REFERENCE, [{3: 0.5, 9: 0.25}, {}, {1: 1.0}, {}])
    parity.save_reference(tmp_path / "reference.npz", ["a", "", "ü", "\n"], kept)
    texts, found = parity.load_reference(tmp_path / "reference.npz")
    assert texts == ["a", "", "ü", "\n"]
    assert (found.dense == kept.dense).all()
    assert found.sparse == kept.sparse
