"""The graph that peers are given computes what ours does."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from model_layer import run
from tests.benchmarks import plain


@pytest.mark.parametrize("model", ["minilm_fp32", "minilm", "seeded"])
def test_a_batch_of_equal_lengths_has_the_vectors_of_our_runs(
    model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Mean and CLS pooling, int8 and float32."""
    layer = Path(shutil.copytree(request.getfixturevalue(model), tmp_path / "layer"))
    plain.write(layer / "model.onnx", layer / "plain.onnx")
    texts = np.random.default_rng(1).integers(1000, 20_000, (3, 9))
    ours = run.session(layer / "model.onnx").run(["dense"], run.feed(*texts))[0]
    theirs = run.session(layer / "plain.onnx").run(["dense"], {"input_ids": texts})[0]
    assert np.abs(ours - theirs).max() < 1e-6
