"""A graph run as the builder needs it: each text alone, on all cores."""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import onnxruntime

from model_layer import graph, heads

TOKENIZER = "tokenizer.json"


def session(model: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        str(model), providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
    )


def token_ids(tokenizer: Path, texts: Sequence[str]) -> Iterator[npt.NDArray[np.int64]]:
    """int64 [1, tokens] of each text, special tokens included."""
    for encoding in Tokenizer.from_file(str(tokenizer)).encode_batch_fast(list(texts)):
        yield np.array([encoding.ids], np.int64)


@dataclass(frozen=True)
class Outputs:
    """`dense` float32 [texts, dimensions]; `sparse`: weight by token id of each text, empty without that head."""

    dense: npt.NDArray[np.float32]
    sparse: list[dict[int, float]]


def outputs(folder: Path, tokenizer: Path, texts: Sequence[str], control: Collection[int] = ()) -> Outputs:
    """A folder's graph, and its heads where there are any, on each text; `control`: ids whose weights do not count."""
    encoder = session(folder / graph.GRAPH)
    head = session(folder / heads.GRAPH) if (folder / heads.GRAPH).is_file() else None
    dense: list[npt.NDArray[np.float32]] = []
    sparse: list[dict[int, float]] = []
    for ids in token_ids(tokenizer, texts):
        if head is None:
            dense.append(encoder.run(["dense"], {"input_ids": ids})[0][0])
            continue
        vectors, states = encoder.run(["dense", "token_states"], {"input_ids": ids})
        dense.append(vectors[0])
        [weights] = head.run(["sparse"], {"token_states": states})
        sparse.append(terms(ids[0], weights[0], control))
    return Outputs(np.stack(dense), sparse)


def terms(ids: npt.NDArray[np.int64], weights: npt.NDArray[np.float32], control: Collection[int]) -> dict[int, float]:
    """The largest weight of each token id, without control ids and weights of 0 (FlagEmbedding 1.4.2, m3.py)."""
    found: dict[int, float] = {}
    for token, weight in zip(ids.tolist(), weights.tolist(), strict=True):
        if weight > found.get(token, 0.0) and token not in control:
            found[token] = weight
    return found


def embed(folder: Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """float32 [len(texts), dimensions], a layer's `dense` output."""
    return outputs(folder, folder / TOKENIZER, texts).dense
