"""int8 weights that no processor can overflow."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from model_layer import quantize

HOUSE = Path(__file__).resolve().parents[2]


def pair_sums(values: npt.NDArray[np.int8], sign: int) -> npt.NDArray[np.int32]:
    """Sums of neighbouring inputs' weights of one sign, [outputs, inputs / 2], of an [outputs, inputs] matrix."""
    part = np.maximum(values.astype(np.int32) * sign, 0)
    return part[:, ::2] + part[:, 1::2]


def matrices(layer: Path) -> dict[str, npt.NDArray[np.int8]]:
    """The int8 matrices of a layer, [outputs, inputs]."""
    graph = onnx.load(layer / "model.onnx").graph
    names = {node.input[1] for node in graph.node if node.op_type == "MatMulIntegerToFloat"}
    return {each.name: onnx.numpy_helper.to_array(each).T for each in graph.initializer if each.name in names}


def test_a_table_is_within_half_a_step_of_itself() -> None:
    array = np.random.default_rng(1).standard_normal((9000, 64), np.float32)
    array[17] = 0
    values, scales = quantize.table(array)
    assert np.abs(values * scales - array).max() <= scales.max() / 2 + 1e-6
    assert np.abs(values).max() == 127


def test_a_matrix_is_within_half_a_step_of_itself() -> None:
    array = np.random.default_rng(2).standard_normal((128, 97), np.float32)
    values, scales = quantize.matrix(array)
    assert (np.abs(values * scales - array) <= scales / 2 + 1e-6).all()


def test_where_every_weight_is_the_widest_no_pair_overflows() -> None:
    """A scale by the widest weight alone gives pairs of 127 + 127."""
    array = np.ones((3, 64), np.float32)
    array[1, ::3] = -1
    values, scales = quantize.matrix(array)
    for sign in (1, -1):
        assert pair_sums(values, sign).max() <= 128
    assert np.abs(values * scales - array).max() <= scales.max() / 2 + 1e-6


def test_without_vnni_no_pair_of_products_can_overflow_sixteen_bits(minilm: Path, seeded: Path) -> None:
    """u8·s8 + u8·s8 has to stay within −32,768 … 32,767 for the largest activation, 255."""
    for layer, count in ((minilm, 36), (seeded, 12)):
        found = matrices(layer)
        assert len(found) == count
        for name, values in found.items():
            assert 255 * pair_sums(values, 1).max() <= 32767, name
            assert 255 * pair_sums(values, -1).max() <= 32768, name


def test_the_scale_is_no_coarser_than_that_asks_for(minilm: Path) -> None:
    fullest = [max(pair_sums(values, sign).max() for sign in (1, -1)) for values in matrices(minilm).values()]
    assert min(fullest) >= 126


needs_qemu = pytest.mark.skipif(
    not shutil.which("qemu-x86_64"), reason="Debian's qemu-user, which emulates the processor, is absent"
)
HASWELL = ("qemu-x86_64", "-cpu", "Haswell")  # AVX2, neither AVX-512 nor VNNI


def run_on(processor: tuple[str, ...], code: str, *arguments: Path) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HOUSE), *filter(None, sys.path)])}
    call = [*processor, os.path.realpath(sys.executable), "-c", code, *map(str, arguments)]
    subprocess.run(call, cwd=HOUSE, env=env, check=True, capture_output=True)


@needs_qemu
def test_a_processor_with_avx2_alone_gives_the_same_vectors(minilm: Path, tmp_path: Path) -> None:
    """Float kernels differ between processors, so that a last bit may round elsewhere."""
    code = (
        "import sys, numpy; from pathlib import Path; from model_layer import parity, run;"
        "from model_layer.catalog import Texts; texts = parity.texts(Texts(('pairs',), 6));"
        "numpy.save(sys.argv[2], run.embed(Path(sys.argv[1]), texts))"
    )
    for name, processor in {"here": (), "haswell": HASWELL}.items():
        run_on(processor, code, minilm, tmp_path / f"{name}.npy")
    here, haswell = (np.load(tmp_path / f"{name}.npy") for name in ("here", "haswell"))
    assert np.einsum("ij,ij->i", here, haswell).min() >= 0.999, "8-bit weights with overflow gave 0.992"


@needs_qemu
def test_a_processor_with_avx2_alone_builds_the_same_layer(tmp_path: Path) -> None:
    """But for the reference's float vectors, whose last bits are the processor's own. Packed matrices stand in the
    weights file: these processors pack alike (handler/engine/packing.py)."""
    code = (
        "import sys; from pathlib import Path; from tests.model_layer.small import EASY, REFERENCE, make;"
        "make(REFERENCE, Path(sys.argv[1]), 'int8', EASY)"
    )
    for name, processor in {"here": (), "haswell": HASWELL}.items():
        run_on(processor, code, tmp_path / name)
    assert (tmp_path / "haswell" / "packed.onnx").exists()
    for name in ("model.onnx", "weights.bin", "heads.onnx", "heads.bin", "tokenizer.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "haswell" / name).read_bytes(), name
