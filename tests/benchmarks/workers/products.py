"""What the GPU can do: torch's fp16 product of two large matrices, alone. Without a GPU, numpy's in float32, small."""

from typing import Any

import numpy as np

from tests.benchmarks.workers.serve import Loaded, Options, main

TIMES = 10


def operations(*, on_gpu: bool) -> int:
    """Multiplications and additions of all products that are timed."""
    return int(2 * _side(on_gpu=on_gpu) ** 3 * TIMES)


def _side(*, on_gpu: bool) -> int:
    return 8192 if on_gpu else 256


def load(options: Options) -> Loaded:
    side = _side(on_gpu=options["on_gpu"])
    if not options["on_gpu"]:
        left = np.random.default_rng(1).standard_normal((side, side), np.float32)
        return Loaded(lambda *_: [left @ left for _ in range(TIMES)])
    import torch

    torch.manual_seed(1)
    left, right = (torch.randn(side, side, dtype=torch.float16, device="cuda") for _ in range(2))
    into = torch.empty_like(left)

    def encode(_texts: object, _batch: int) -> Any:
        for _ in range(TIMES):
            torch.matmul(left, right, out=into)
        torch.cuda.synchronize()

    encode(None, 0)  # cuBLAS chooses its kernel
    return Loaded(encode)


if __name__ == "__main__":
    main(load)
