"""Scales of the activations that a build measures, and what it does where they do not suffice."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_layer import build, calibration, quantize
from model_layer.catalog import Thresholds
from model_layer.sources import open_source
from tests.model_layer.small import EASY, REFERENCE


@pytest.mark.parametrize("bounds", [(-3.0, 5.0), (0.5, 7.0), (-9.0, -1.0), (0.0, 0.0), (-1e-3, 1e4)])
def test_a_scale_covers_its_range_and_holds_zero_exactly(bounds: tuple[float, float]) -> None:
    low, high = (np.array([bound, bound / 2], np.float32) for bound in bounds)
    scale, zero = quantize.activations(low, high)
    assert 0 <= zero <= 255
    assert (0 - float(zero)) * scale <= min(0, bounds[0]) + scale / 2
    assert (255 - float(zero)) * scale >= max(0, bounds[1]) - scale / 2
    assert scale <= 1.01 * (max(0, bounds[1]) - min(0, bounds[0])) / 255 or bounds == (0.0, 0.0)


def test_a_scale_does_not_hear_of_a_last_bit() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        low, high = -rng.random(4, np.float32), rng.random(4, np.float32)
        nudged = [np.nextafter(each, np.float32(0)) for each in (low, high)]
        assert quantize.activations(low, high) == quantize.activations(*nudged)


def test_where_calibration_saw_too_little_the_scales_are_by_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every channel a fifth as wide as texts make it; the smoothing factors, which are ratios, stay the same."""
    observed, model, steps = (
        calibration.ranges,
        replace(EASY, thresholds=Thresholds(0.97, 0.9, None, None)),
        list[str](),
    )
    for factor, scales in ((1, "static"), (5, "dynamic")):
        monkeypatch.setattr(
            calibration,
            "ranges",
            lambda *call, by=factor: {name: (low / by, high / by) for name, (low, high) in observed(*call).items()},
        )
        out = tmp_path / scales
        build.build(model, open_source(model, tmp_path, REFERENCE), "int8", out, steps.append)
        facts = json.loads((out / "manifest.json").read_text())
        assert facts["activation_scales"] == scales
        assert facts["parity"]["mean_cosine"] >= 0.97
    assert sum("static scales of the activations are not exact enough: mean_cosine is" in step for step in steps) == 1
