"""What the peers load: layers, the checkpoint and what is made of it, once for a model, in tests/benchmarks/out."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_layer.catalog import MODELS, Model, Texts
from model_layer.commands import OUT as LAYERS
from model_layer.sources import open_source
from tests.benchmarks import batched, checkpoint
from tests.benchmarks.loads import Texter
from tests.benchmarks.peers import MADE, Peer
from tests.benchmarks.process import HOUSE, WorkerError, prepare, python

OUT = Path(__file__).parent / "out"
_CALIBRATION = [16, 32, 64, 128, 256]  # tokens of the texts that static quantization is calibrated on
_GRAPH_READER = "openvino"  # takes our float32 graph, the others the checkpoint
_EACH = 24  # texts of each length

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Materials:
    """Of one model. `threads`: what every peer may use."""

    model: Model
    name: str
    layers: dict[str, str]  # folders by precision
    texter: Texter
    threads: int
    tell: Tell

    @property
    def folder(self) -> Path:
        return OUT / self.name

    def missing(self, peer: Peer) -> str | None:
        """Why a peer cannot be asked here, if so."""
        for name in {peer.environment, MADE[peer.made].environment if peer.made else None}:
            if name and not (HOUSE / ".venv-peers" / name / "ready").exists():
                return f"no environment {python(name).parent.parent.relative_to(HOUSE)}"
        return None

    def options(self, peer: Peer) -> dict[str, Any]:
        """A peer's options, after the files that it loads have been made. Raises WorkerError."""
        options = {"threads": self.threads, "layers": self.layers, **peer.options}
        if peer.environment:
            options |= self._source_for(peer.environment)
        if peer.made:
            options["made"] = str(self._made(peer.made))
        return options

    def _source_for(self, environment: str) -> dict[str, str]:
        """What a peer of this environment reads or is made of, as an option."""
        name, write = ("graph", batched.write) if environment == _GRAPH_READER else ("checkpoint", checkpoint.write)
        with _once(self.folder / name) as made:
            if made:
                self.tell(f"{self.name}: writing the {name}")
                source, _ = open_source(self.model, LAYERS / "sources")
                write(source, self.model, made)
        return {name: str(self.folder / name)}

    def _made(self, name: str) -> Path:
        maker = MADE[name]
        with _once(self.folder / name) as made:
            if made:
                self.tell(f"{self.name}: making {name}")
                options = {"threads": self.threads, "layers": self.layers, "made": str(made), **maker.options}
                options |= self._source_for(maker.environment)
                lengths = [length for length in _CALIBRATION if length <= self.model.context] * _EACH
                options["calibration"] = self.texter.texts(lengths, seed=2)
                prepare(maker.environment, maker.worker, options, self.folder / f"{name}.log")
        return self.folder / name


def gather(name: str, layers: int | None, threads: int, tell: Tell) -> Materials:
    """Of a model of the catalog, with so many layers if it is seeded. Its layers are built if they are not there."""
    model = MODELS[name]
    shallow = layers if model.weights == "seeded" else None
    if shallow:
        model, name = model.with_layers(shallow), f"{name}-{shallow}"
    folders = {}
    for precision in ("int8", "fp32"):
        folder = LAYERS / (name if precision == "int8" else f"{name}-{precision}")
        call = [sys.executable, "-m", "model_layer", "build", model.id, "--precision", precision, "--if-absent"]
        call += ["--cl100k", "none", *(["--layers", str(shallow)] if shallow else [])]
        tell(f"{name}: the {precision} layer")
        done = subprocess.run(call, cwd=HOUSE, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WorkerError(done.stdout + done.stderr)
        folders[precision] = str(folder)
    (OUT / name).mkdir(parents=True, exist_ok=True)
    texts = Texts(model.verification.files)
    return Materials(model, name, folders, Texter(Path(folders["int8"]), texts), threads, tell)


@contextmanager
def _once(folder: Path) -> Iterator[Path | None]:
    """An empty folder that becomes this one when it is full, or None where this one is there."""
    if folder.exists():
        yield None
        return
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        made = Path(name) / folder.name
        made.mkdir()
        yield made
        made.rename(folder)
