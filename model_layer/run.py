"""A graph run as the builder needs it: each text alone, on all cores."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

import onnxruntime


def session(model: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        str(model), providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
    )


def token_ids(tokenizer: Path, texts: Sequence[str]) -> Iterator[npt.NDArray[np.int64]]:
    """int64 [1, tokens] of each text, special tokens included."""
    for encoding in Tokenizer.from_file(str(tokenizer)).encode_batch_fast(list(texts)):
        yield np.array([encoding.ids], np.int64)


def embed(model: Path, tokenizer: Path, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """float32 [len(texts), dimensions], the graph's `dense` output."""
    encoder = session(model)
    return np.concatenate([encoder.run(["dense"], {"input_ids": ids})[0] for ids in token_ids(tokenizer, texts)])
