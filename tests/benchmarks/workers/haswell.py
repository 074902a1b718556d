"""Ours as emblet.py has it, on the kernels of a processor with AVX2 alone."""

from tests.benchmarks import haswell
from tests.benchmarks.workers.serve import Loaded, Options, main


def load(options: Options) -> Loaded:
    haswell.pretend()
    from tests.benchmarks.workers import emblet  # which imports onnxruntime

    return emblet.load(options)


if __name__ == "__main__":
    main(load)
