"""The layer for CUDA, without a GPU: its graph, what its one operator is told of the row, and how exact it is."""

import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from handler.engine import manifest
from handler.engine.manifest import FP32, GRAPH, WEIGHTS
from model_layer import build, cuda, encoder, graph, parity, quantize, run, standin, verify
from model_layer.catalog import MODELS, Model, Texts, Thresholds
from model_layer.facts import files
from model_layer.offsets import Offsets
from model_layer.run import Outputs
from model_layer.sources import Source, open_source
from model_layer.writer import Writer, floats
from tests.model_layer.small import EASY, REFERENCE, make

HOUSE = Path(__file__).resolve().parents[2]
COSINE = {"fp16": 0.99999, "int8": 0.9995}
MINILM = replace(MODELS["all-minilm-l6-v2"], verification=Texts(("pairs",), 60))


@pytest.fixture(scope="module")
def small_cuda(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """bge-m3 at small geometry, by its weights."""
    folder = tmp_path_factory.mktemp("small")
    return {weights: make(REFERENCE, folder / weights, weights, EASY, "cuda") for weights in ("fp16", "int8")}


@pytest.fixture(scope="module")
def minilm_cuda(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The encoder of the real MiniLM, by its weights: of layers it is the folders' only file."""
    folder, (source, _) = tmp_path_factory.mktemp("minilm"), open_source(MINILM, HOUSE / "model_layer/out/sources")
    for weights in COSINE:
        (folder / weights).mkdir()
        cuda.write(source, MINILM, folder / weights, weights, lambda _: None)
    return {weights: folder / weights for weights in COSINE}


@pytest.fixture(scope="module")
def minilm_exact(minilm_fp32: Path) -> Outputs:
    return run.outputs(minilm_fp32, parity.texts(MINILM.verification))


def told(lengths: list[int], folder: Path) -> list[np.ndarray]:
    """What Offsets make of a row of texts: offsets, cumulative lengths, starts, positions from 2 on, members."""
    with Writer(folder / WEIGHTS) as graph:
        offsets = Offsets(graph, "input_ids", "lengths")
        values = (offsets.by_token, offsets.cumulative, offsets.starts,
                  offsets.positions(graph.constant("two", [2], np.int32)), offsets.members)  # fmt: skip
        for number, value in enumerate(values):
            graph.output(f"output_{number}", value)
        kinds = (TensorProto.INT32, TensorProto.INT32, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL)
        inputs = [("input_ids", TensorProto.INT64, ["tokens"]), ("lengths", TensorProto.INT64, ["texts"])]
        outputs = [(f"output_{number}", kind, None) for number, kind in enumerate(kinds)]
        graph.save(folder / GRAPH, inputs, outputs)  # type: ignore[arg-type]
    session = onnxruntime.InferenceSession(str(folder / GRAPH), providers=["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, run.feed(*(np.ones(length, np.int64) for length in lengths)))
    return found


@pytest.mark.parametrize("lengths", [[1, 2, 4], [4, 1, 2], [3], [5, 5, 5], [2, 9, 2, 9, 3], [1, 1]])
def test_the_operator_is_told_where_each_token_would_stand_if_padded(lengths: list[int], tmp_path: Path) -> None:
    by_token, cumulative, starts, positions, members = told(lengths, tmp_path)

    real = np.arange(max(lengths)) < np.array(lengths)[:, None]
    places = np.arange(real.size)
    assert (
        by_token.tolist() == np.concatenate([places[real.ravel()], places[~real.ravel()]]).reshape(real.shape).tolist()
    )
    assert cumulative.tolist() == [0, *np.cumsum(lengths).tolist()]
    assert starts.tolist() == [0, *np.cumsum(lengths)[:-1].tolist()]
    assert positions.tolist() == [2 + n for length in lengths for n in range(length)]
    assert members.tolist() == [[text == row for text, each in enumerate(lengths) for _ in range(each)]
                                for row in range(len(lengths))]  # fmt: skip


def test_that_is_what_its_documentation_says(tmp_path: Path) -> None:
    assert told([1, 2, 4], tmp_path)[0].ravel().tolist() == [0, 4, 5, 8, 9, 10, 11, 1, 2, 3, 6, 7]


@pytest.mark.parametrize("weights", COSINE)
def test_vectors_of_the_real_weights_agree_with_fp32(
    weights: str, minilm_cuda: dict[str, Path], minilm_fp32: Path, minilm_exact: Outputs
) -> None:
    """All 60 texts in runs of 512 tokens, so that they are packed and unpacked on the way."""
    found = run.outputs(minilm_fp32, parity.texts(MINILM.verification), (), minilm_cuda[weights])

    cosines = np.einsum("ij,ij->i", found.dense, minilm_exact.dense)
    assert cosines.min() >= COSINE[weights], cosines.min()
    assert np.abs(np.linalg.norm(found.dense, axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("weights", COSINE)
def test_token_states_agree_with_fp32(weights: str, minilm_cuda: dict[str, Path], minilm_fp32: Path) -> None:
    ids = list(run.token_ids(minilm_fp32, ["the quick brown fox", "jumps"]))
    outputs, feed = ["token_states"], run.feed(*ids)
    exact, found = (run.session(folder / GRAPH).run(outputs, feed)[0] for folder in (minilm_fp32, minilm_cuda[weights]))
    assert found.dtype == np.float32
    assert found.shape == exact.shape == (1, sum(map(len, ids)), 384)
    assert np.abs(found - exact).max() < (0.01 if weights == "fp16" else 0.1)


@pytest.mark.parametrize("weights", COSINE)
def test_a_text_sees_nothing_of_its_company(weights: str, minilm_cuda: dict[str, Path]) -> None:
    session = run.session(minilm_cuda[weights] / GRAPH)
    texts = [np.random.default_rng(length).integers(1000, 20000, length) for length in (7, 130, 2, 64, 64, 5)]
    together = session.run(["dense"], run.feed(*texts))[0]
    alone = [session.run(["dense"], run.feed(each))[0][0] for each in texts]
    assert np.abs(together - alone).max() < 1e-5


@pytest.mark.parametrize("weights", COSINE)
def test_its_graph_in_fp32_makes_the_same_vectors(weights: str, minilm_cuda: dict[str, Path]) -> None:
    texts = [np.random.default_rng(length).integers(1000, 20000, length) for length in (7, 130, 2, 64)]
    feed, outputs = run.feed(*texts), ["dense", "token_states"]
    half, exact = (run.session(minilm_cuda[weights] / name).run(outputs, feed) for name in (GRAPH, FP32))
    assert np.einsum("ij,ij->i", half[0], exact[0]).min() > 0.99999
    assert np.abs(half[1] - exact[1]).max() < 0.02


class Loud:
    """A source of which one matrix is so large that its products leave fp16's range, and it does not."""

    def __init__(self, source: Source) -> None:
        self._source, self.tokenizer = source, source.tokenizer

    def tensor(self, name: str, *shape: int) -> np.ndarray:
        array = self._source.tensor(name, *shape)
        return array * 5e3 if name == "encoder.layer.3.output.dense.weight" else array


@pytest.mark.parametrize("weights", COSINE)
def test_states_that_leave_fp16s_range_have_a_vector_in_fp32(weights: str, tmp_path: Path) -> None:
    source = Loud(open_source(MINILM, HOUSE / "model_layer/out/sources")[0])
    cuda.write(source, MINILM, tmp_path, weights, lambda _: None)
    (tmp_path / "reference").mkdir()
    graph.write(source, MINILM, tmp_path / "reference", None, lambda _: None)
    feed = run.feed(*(np.random.default_rng(length).integers(1000, 20000, length) for length in (7, 130, 2, 64)))

    half, exact, reference = (
        run.session(path).run(["dense"], feed)[0]
        for path in (tmp_path / GRAPH, tmp_path / FP32, tmp_path / "reference" / GRAPH)
    )
    assert not np.isfinite(half).all(axis=1).any()
    assert np.einsum("ij,ij->i", exact, reference).min() > {"fp16": 0.99999, "int8": 0.999}[weights]


def test_in_fp32_the_arithmetic_is_that_and_the_weights_are_the_same_bytes(minilm_cuda: dict[str, Path]) -> None:
    half, exact = (onnx.load(minilm_cuda["fp16"] / name, load_external_data=False).graph for name in (GRAPH, FP32))
    assert exact.initializer == half.initializer
    inferred = onnx.shape_inference.infer_shapes(onnx.load(minilm_cuda["fp16"] / FP32, load_external_data=False))
    kinds = {each.name: each.type.tensor_type.elem_type for each in inferred.graph.value_info}
    halves = {name for name, kind in kinds.items() if kind == TensorProto.FLOAT16}
    assert halves == {node.input[0] for node in exact.node if node.op_type == "Cast" and node.input[0] in halves}


@pytest.mark.parametrize("weights", COSINE)
def test_bge_m3s_geometry_agrees_with_fp32(weights: str, small_cuda: dict[str, Path]) -> None:
    figures = manifest.load(small_cuda[weights]).parity
    assert figures["mean_cosine"] >= {"fp16": 0.9999, "int8": 0.999}[weights]
    assert figures["sparse_overlap"] >= 0.98


def test_the_true_geometry_is_packed_as_on_a_gpu(seeded_cuda: Path) -> None:
    """Two layers with seeded weights: CLS pooling, sixteen heads of 64, positions from 2 on, to the last of 8,192."""
    facts = manifest.load(seeded_cuda)
    assert (facts.target, facts.precision, facts.asked, facts.activation_scales) == ("cuda", "fp16", "fp16", None)
    assert facts.parity["least_cosine"] >= 0.9999
    assert encoder.read(seeded_cuda).geometry == MODELS["bge-m3-seeded"].with_layers(2).geometry
    weights = (seeded_cuda / WEIGHTS).stat().st_size
    assert weights == pytest.approx(2 * (250_002 + 8194 + 2 * (12 * 1024 + 13)) * 1024, rel=0.001), "fp16, no copy"


def test_products_are_fp16_and_nothing_else_needs_cudnn(minilm_cuda: dict[str, Path], seeded_cuda: Path) -> None:
    for folder, pooled in ((minilm_cuda["fp16"], "MatMul"), (seeded_cuda, "Cast")):
        graph = onnx.load(folder / GRAPH, load_external_data=False).graph
        layers = sum(node.op_type == cuda.ATTENTION for node in graph.node)
        kinds = [node.op_type for node in graph.node]
        assert not [kind for kind in kinds if re.match(r"Reduce|Loop|If|Arg|Softmax|Dynamic", kind)], kinds
        assert kinds.count("MatMul") == 6 * layers + (pooled == "MatMul")
        assert kinds.count(cuda.NORM) == 2 * layers + 1
        dtypes = {each.name: each.data_type for each in graph.initializer if each.data_location}
        assert {name for name, kind in dtypes.items() if kind != TensorProto.FLOAT16} == {"length_one"}


def test_a_cpu_has_no_kernel_for_the_graph_that_ships(minilm_cuda: dict[str, Path]) -> None:
    path = minilm_cuda["fp16"] / GRAPH
    with pytest.raises(Exception, match=cuda.ATTENTION):
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shipped = onnx.load(path, load_external_data=False)
    stands_in = standin.without_gpu(shipped)
    for node in stands_in.graph.node:
        if node.op_type == cuda.ATTENTION:
            node.domain = "com.microsoft"
    assert stands_in.graph == shipped.graph, "all else is the very same"


def test_blocks_are_within_half_a_step_of_themselves() -> None:
    array = np.random.default_rng(4).standard_normal((48, 96), np.float32)
    array[3, 32:64] = 0
    values, scales = quantize.blocks(array)
    steps = np.repeat(scales.astype(np.float32), quantize.BLOCK, axis=1)
    back = (values.reshape(48, 96).astype(np.float32) - 128) * steps
    assert (np.abs(back - array) <= steps * 0.51 + 127 * steps / 2048 + 1e-6).all(), "and what fp16 rounds of a scale"
    assert (back[3, 32:64] == 0).all()


@pytest.mark.parametrize("weights", COSINE)
def test_verify_judges_such_a_layer(weights: str, small_cuda: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "bge-m3", EASY)
    monkeypatch.setattr(Model, "required", lambda *_: Thresholds(0.5, 0.1, None, None))
    found, figures = verify.faults(small_cuda[weights])
    assert found == []
    assert figures == manifest.load(small_cuda[weights]).parity


def test_of_such_a_layer_nothing_is_packed(small_cuda: dict[str, Path], tmp_path: Path) -> None:
    assert not (small_cuda["fp16"] / manifest.PACKED).exists()
    layer = Path(shutil.copytree(small_cuda["fp16"], tmp_path / "layer"))
    shutil.copy(layer / GRAPH, layer / manifest.PACKED)
    facts = replace(manifest.load(layer), files=files(layer))
    replace(facts, files={name: each for name, each in facts.files.items() if name != manifest.NAME}).save(layer)
    assert "packed.onnx: no file of a layer" in "\n".join(verify.faults(layer)[0])


def test_the_graph_in_fp32_belongs_to_the_other(
    small_cuda: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "bge-m3", EASY)
    layer = Path(shutil.copytree(small_cuda["fp16"], tmp_path / "layer"))
    facts = manifest.load(layer)
    wide = onnx.load(layer / FP32, load_external_data=False)
    next(node for node in wide.graph.node if node.op_type == cuda.NORM).attribute[0].f = 0.5
    (layer / FP32).write_bytes(wide.SerializeToString())

    def told() -> str:
        there = {name: each for name, each in files(layer).items() if name != manifest.NAME}
        replace(facts, files=there).save(layer)
        return "\n".join(verify.faults(layer)[0])

    assert "fp32.onnx is not model.onnx in fp32 arithmetic" in told()
    (layer / FP32).unlink()
    assert "fp32.onnx: not there, and bge-m3 has it" in told()
    told()
    is_complete = partial(build.is_complete, model=EASY, precision="fp16", with_cl100k=False, target="cuda")
    assert not is_complete(layer), "so that `build` makes it again"
    assert is_complete(small_cuda["fp16"])


def test_a_layer_that_is_not_exact_enough_is_not_built(tmp_path: Path) -> None:
    strict = replace(EASY, thresholds=replace(EASY.thresholds, spearman=1.1))
    with pytest.raises(build.BuildError, match=r"weights in int8 is not exact enough: spearman .*--weights fp16 may"):
        make(REFERENCE, tmp_path / "never", "int8", strict, "cuda")
    assert not (tmp_path / "never").exists()


def test_what_must_be_reached_is_the_cpus_and_a_cosine_by_the_weights() -> None:
    model = MODELS["all-minilm-l6-v2"]
    assert model.required("cpu", "int8") == model.thresholds
    for weights, cosine in (("fp16", 0.999), ("int8", 0.99)):
        found = model.required("cuda", weights)
        assert (found.mean_cosine, found.percentile_cosine) == (cosine, cosine)
        assert found.neighbours == model.thresholds.neighbours
        assert found.docstrings
        assert (found.docstrings.mean_cosine, found.docstrings.percentile_cosine) == (cosine, cosine)
    assert MODELS["bge-m3-seeded"].required("cuda", "fp16").docstrings is None


def test_a_number_that_fp16_has_not_is_found(small_cuda: dict[str, Path]) -> None:
    names = dict(floats(small_cuda["fp16"] / GRAPH))
    assert names["word_embeddings"].dtype == np.float16, "so that `verify` looks at it"
    assert "encoder.layer.1.output.dense" in names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--weights", "int8"), "--weights for --target cuda"),
        (("--target", "cuda", "--precision", "int8"), "--precision is for --target cpu"),
        (("--target", "cuda", "--weights", "int4"), "invalid choice"),
    ],
)
def test_words_of_another_target_are_refused(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from model_layer import commands

    with pytest.raises(SystemExit) as caught:
        commands.main(["build", "bge-m3", *options])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
