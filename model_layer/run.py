"""A graph run as the builder needs it."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from tokenizers import Tokenizer

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import onnxruntime

from handler.engine.manifest import GRAPH, TOKENIZER
from model_layer import encoder, heads, standin

Ids = npt.NDArray[np.int64]

_TOGETHER = 512  # tokens of texts that share a run


def session(model: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """On the CPU, where a graph for CUDA has its stand-in. `threads`: 0 for one on each core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    graph, source = onnx.load(model, load_external_data=False), str(model)
    if standin.is_for_cuda(graph):
        source = standin.without_gpu(graph).SerializeToString()
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.parent))
    return onnxruntime.InferenceSession(
        source, options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
    )


def feed(*texts: Ids) -> dict[str, Ids]:
    """What the graph takes for texts of these token ids, int64 [tokens] each."""
    return {"input_ids": np.concatenate(texts), "lengths": np.array([len(each) for each in texts], np.int64)}


def token_ids(layer: Path, texts: Sequence[str]) -> Iterator[Ids]:
    """int64 [tokens] of each text by the layer's tokenizer, special tokens included."""
    for encoding in Tokenizer.from_file(str(layer / TOKENIZER)).encode_batch_fast(list(texts)):
        yield np.array(encoding.ids, np.int64)


@dataclass(frozen=True)
class Outputs:
    """`dense` float32 [texts, dimensions]; `sparse`: weight by token id of each text, empty without that head;
    `finite`: whether every number of every output was, multi-vectors included."""

    dense: npt.NDArray[np.float32]
    sparse: list[dict[int, float]]
    finite: bool = True

    def __getitem__(self, part: slice) -> "Outputs":
        """Of some of the texts."""
        return Outputs(self.dense[part], self.sparse[part], self.finite)


def outputs(
    layer: Path, texts: Sequence[str], control: Collection[int] = (), unquantized: Path | None = None
) -> Outputs:
    """A layer's vectors of each text, and its heads' where it has any; `control`: ids whose weights do not count.

    `unquantized`: the folder of another encoder for the layer's tokenizer and heads. As in the engine, texts share runs
    where their vectors do not depend on it.
    """
    folder = unquantized or layer
    graph, head = session(folder / GRAPH), None
    if (layer / heads.GRAPH).is_file():
        head = session(layer / heads.GRAPH)
    share = head is None and encoder.shares_runs(folder)
    dense: list[npt.NDArray[np.float32]] = []
    sparse: list[dict[int, float]] = []
    finite = True
    for ids in _runs(token_ids(layer, texts), _TOGETHER if share else 0):
        found = graph.run(["dense", "token_states"] if head else ["dense"], feed(*ids))
        dense.extend(found[0])
        if head:
            found += head.run(["sparse", "multi_vector"], {"token_states": found[1]})
            sparse.append(terms(ids[0], found[2][0], control))
        finite = finite and all(np.isfinite(each).all() for each in found)
    return Outputs(np.stack(dense), sparse, bool(finite))


def _runs(texts: Iterable[Ids], together: int) -> Iterator[list[Ids]]:
    """One text after another, in runs of so many tokens or of one text."""
    run: list[Ids] = []
    for text in texts:
        if run and sum(map(len, run)) + len(text) > together:
            yield run
            run = []
        run.append(text)
    if run:
        yield run


def terms(ids: Ids, weights: npt.NDArray[np.float32], control: Collection[int]) -> dict[int, float]:
    """The largest weight of each token id, without control ids and weights of 0 (FlagEmbedding 1.4.2, m3.py)."""
    found: dict[int, float] = {}
    for token, weight in zip(ids.tolist(), weights.tolist(), strict=True):
        if weight > found.get(token, 0.0) and token not in control:
            found[token] = weight
    return found


def embed(layer: Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """float32 [len(texts), dimensions], a layer's `dense` output."""
    return outputs(layer, texts).dense
