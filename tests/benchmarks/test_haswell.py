"""The kernels of a processor with AVX2 alone, at this one's speed."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import haswell
from tests.benchmarks.process import HOUSE, Worker
from tests.benchmarks.workers import emblet


@pytest.mark.skipif(not shutil.which("objdump"), reason="binutils' objdump is absent")
def test_ours_gives_its_vectors_where_two_products_are_added_in_16_bits(minilm: Path, tmp_path: Path) -> None:
    """A worker that is not on such kernels does not start (haswell.pretend)."""
    options = {"threads": 1, "layers": {"int8": str(minilm)}, "precision": "int8"}
    texts = [[101, *range(1000, 1000 + length), 102] for length in (1, 14, 126)]
    here = emblet.load(options).encode(texts, 0)
    with Worker(None, "haswell", options, tmp_path / "log") as worker:
        worker.give(texts)
        there = worker.vectors(0, len(texts))
    assert np.einsum("ij,ij->i", here, there).min() > 0.9999


def test_it_says_what_it_lacks() -> None:
    call = [sys.executable, "-m", "tests.benchmarks.haswell", "model_layer"]
    done = subprocess.run(call, cwd=HOUSE, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "RuntimeError: objdump, of binutils, is absent"


def test_kernels_that_were_chosen_are_not_called_others() -> None:
    import onnxruntime  # noqa: F401

    with pytest.raises(RuntimeError, match="already"):
        haswell.pretend()
