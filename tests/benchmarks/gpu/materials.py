"""What the workers load, made of the same seeded weights: our layers' graphs, and a checkpoint for torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from handler.engine import gpu
from model_layer import cuda, graph
from model_layer.catalog import Model
from model_layer.sources import Seeded
from tests.benchmarks import checkpoint
from tests.benchmarks.loads import Load


@dataclass(frozen=True)
class Materials:
    """`folder`: where to make them; `threads`: of the CPU, what every worker may use."""

    model: Model
    folder: Path
    on_gpu: bool
    threads: int
    tell: Callable[[str], None]

    def texts(self, load: Load) -> list[list[int]]:
        """Token ids, drawn: to weights that are drawn, one is as good as another. Each text is another."""
        draw = np.random.default_rng(3)
        return [draw.integers(4, self.model.geometry.vocabulary - 1, length).tolist() for length in load.lengths]

    def options(self, given: Mapping[str, Any], *, cpu: bool = False) -> dict[str, Any]:
        """A worker's options. Makes what it loads, the first time."""
        return {
            "threads": self.threads,
            "on_gpu": self.on_gpu and not cpu,
            "device": "cuda" if self.on_gpu else "cpu",
            "graphs": self._graphs,
            "dimensions": self.model.geometry.hidden,
            "padding": self.model.geometry.first_position - 1,
            **given,
        }

    def device(self) -> str:
        """What it is measured on. Raises LayerError where there is no GPU, but should be."""
        if not self.on_gpu:
            return "No GPU: figures of the CPU's stand-in, which say nothing of one"
        found = gpu.find()
        return f"{found.name}, compute capability {found.capability}, {found.memory / 2**30:.0f} GiB"

    @cached_property
    def _graphs(self) -> dict[str, str]:
        """Folders by precision."""
        found = {}
        for precision in ("fp32", "fp16", "int8"):
            self.tell(f"writing the {precision} graph")
            found[precision] = str(made := self.folder / precision)
            made.mkdir()
            if precision == "fp32":
                graph.write(Seeded(), self.model, made, None, lambda _: None)
            else:
                cuda.write(Seeded(), self.model, made, precision, lambda _: None)
        return found

    @cached_property
    def checkpoint(self) -> str:
        """The folder of what torch loads."""
        self.tell("writing the checkpoint")
        made = self.folder / "checkpoint"
        made.mkdir()
        checkpoint.write(Seeded(), self.model, made)
        return str(made)
