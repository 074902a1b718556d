"""The benchmark for a GPU (bench.py), on what it carries.

    python -m tests.benchmarks.gpu.wheels     where there is a package index: fetches onnxruntime-gpu into wheels/
    python -m tests.benchmarks.gpu            on a machine with a GPU, torch and sentence-transformers

The second needs nothing from outside: this repository, what its Python has, and the wheels, where those are carried.
"""

import os
import sys

from tests.benchmarks.gpu import wheels

if __name__ == "__main__":
    # Another process: what is imported, and where the loader looks, is settled when one starts.
    environ = dict(os.environ) if "--cpu" in sys.argv else wheels.installed()
    os.execve(sys.executable, [sys.executable, "-m", "tests.benchmarks.gpu.bench", *sys.argv[1:]], environ)
