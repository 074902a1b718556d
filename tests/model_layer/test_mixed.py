"""Which matrices hurt in int8, measured, and the layer that leaves them in float32."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from model_layer import build
from model_layer.arrays import POSITIONS, WORDS
from model_layer.catalog import Model, Thresholds
from model_layer.checkpoint import Provenance
from model_layer.sources import Source, open_source
from tests.model_layer.small import EASY, REFERENCE, SMALL

SPOILT = "encoder.layer.1.intermediate.dense"


@dataclass
class OneHardMatrix:
    """A checkpoint in which one matrix has a weight a thousand times the others of its row, as has its scale."""

    source: Source

    def tensor(self, name: str, *shape: int) -> Any:
        array = self.source.tensor(name, *shape)
        if name == f"{SPOILT}.weight":
            array = array.copy()
            array[:, 7] = 1000 * np.abs(array).max()
        if name == "encoder.layer.1.attention.output.LayerNorm.weight":
            array = array.copy()
            array[7] = 1e-3  # what that weight reads is small: the unquantized model hardly sees it
        if name == "encoder.layer.1.attention.output.LayerNorm.bias":
            array = array.copy()
            array[7] = 0
        return array

    def tokenizer(self) -> str:
        return self.source.tokenizer()


def make(out: Path, precision: str, model: Model, progress: Any = lambda _: None) -> dict[str, Any]:
    source, _ = open_source(SMALL, out.parent, REFERENCE)
    build.build(model, (OneHardMatrix(source), Provenance({}, ())), precision, out, progress)
    facts: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return facts


# What the checkpoint with the hard matrix reaches only if that one is spared.
MODEL = replace(SMALL, thresholds=Thresholds(0.98, 0.9, None, None))


def test_an_int8_that_falls_short_says_which_precision_passes_and_what_hurts(tmp_path: Path) -> None:
    with pytest.raises(build.BuildError, match="mean_cosine is ") as caught:
        make(tmp_path / "never", "int8", MODEL)
    assert f"--precision mixed passes, which leaves in float32 what hurts most ({SPOILT})" in str(caught.value)
    assert "--precision fp32 passes" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_mixed_leaves_in_float32_what_was_measured_to_hurt_and_no_more(tmp_path: Path) -> None:
    steps: list[str] = []
    facts = make(tmp_path / "mixed", "mixed", MODEL, steps.append)
    assert facts["float32"] == [SPOILT]
    assert facts["precision"] == "int8"
    assert facts["parity"]["mean_cosine"] >= 0.98
    kinds = {node.input[1]: node.op_type for node in nodes(tmp_path / "mixed") if len(node.input) > 1}
    assert kinds[SPOILT] == "MatMul"
    assert sum(kind == "MatMulIntegerToFloat" for kind in kinds.values()) == 11
    tried = [step for step in steps if " with " in step]
    assert [step.split(": ")[0] for step in tried] == [f"{number}/10" for number in range(1, 11)], "progress is shown"


def test_where_int8_passes_mixed_is_int8(tmp_path: Path) -> None:
    assert make(tmp_path / "mixed", "mixed", EASY)["float32"] == []
    make(tmp_path / "int8", "int8", EASY)
    for name in ("model.onnx", "weights.bin"):
        assert (tmp_path / "mixed" / name).read_bytes() == (tmp_path / "int8" / name).read_bytes()


def test_more_matrices_are_spared_where_one_is_not_enough(tmp_path: Path) -> None:
    facts = make(tmp_path / "mixed", "mixed", replace(MODEL, thresholds=Thresholds(0.9999, 0.9, None, None)))
    assert SPOILT in facts["float32"]
    assert len(facts["float32"]) > 1
    assert facts["parity"]["mean_cosine"] >= 0.9999


def test_where_nothing_helps_only_fp32_is_named(tmp_path: Path) -> None:
    never = replace(MODEL, thresholds=Thresholds(1.5, 0.9, None, None))  # no cosine is so large
    with pytest.raises(build.BuildError, match=r"required\. --precision fp32 passes\.$"):
        make(tmp_path / "never", "mixed", never)


@pytest.mark.parametrize("table", [POSITIONS, WORDS])
def test_a_table_can_be_left_in_float32(tmp_path: Path, table: str) -> None:
    easy = replace(EASY, unquantized=(table,))
    assert make(tmp_path / "kept", "int8", easy)["float32"] == [table]
    [kept] = [each for each in onnx.load(tmp_path / "kept/model.onnx").graph.initializer if each.name == table]
    assert kept.data_type == onnx.TensorProto.FLOAT


def nodes(layer: Path) -> Any:
    return onnx.load(layer / "model.onnx", load_external_data=False).graph.node
