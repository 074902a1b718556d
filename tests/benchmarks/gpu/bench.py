"""Ours on a GPU, in fp16, with 8-bit weights and in fp32 arithmetic, against sentence-transformers in fp16 on torch
(sdpa): the same seeded weights of bge-m3's geometry, the same token lists, taking turns, in one table.

Weights are drawn, graphs written, and float32 vectors to compare with made by onnxruntime's CPU provider, in a folder
that is gone afterwards. The exit status is 1 where vectors of ours are further from float32's than they may be; no time
is ever a failure.
`--cpu` tries the same without a GPU, in seconds, at a geometry so small that its figures say nothing.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from handler.engine.manifest import LayerError
from model_layer.catalog import MODELS, Model
from tests.benchmarks import bound, machine
from tests.benchmarks.bound import Peaks
from tests.benchmarks.gpu import table
from tests.benchmarks.gpu.materials import Materials
from tests.benchmarks.gpu.peers import COSINES, LOADS, PEERS
from tests.benchmarks.process import Matrix, Worker, WorkerError, prepare
from tests.benchmarks.rounds import Entry, take_turns
from tests.benchmarks.table import Result
from tests.benchmarks.workers import products

_BGE_M3 = MODELS["bge-m3-seeded"]
# Of --cpu: a head is as wide as bge-m3's.
_SMALL = replace(_BGE_M3.geometry, vocabulary=1000, hidden=128, heads=2, intermediate=512, layers=2)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    asked.peers = asked.peers or ([*COSINES] if asked.cpu else [*PEERS])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no halted worker stays behind
    start = time.monotonic()

    def tell(step: str) -> None:
        print(f"{time.monotonic() - start:7.1f} s  {step}", file=sys.stderr, flush=True)

    model = replace(_BGE_M3, geometry=_SMALL) if asked.cpu else _BGE_M3.with_layers(asked.layers)
    with tempfile.TemporaryDirectory(prefix="emblet-gpu-") as folder:
        made = Materials(model, Path(folder), on_gpu=not asked.cpu, threads=asked.threads, tell=tell)
        try:
            device = made.device()
        except LayerError as error:
            sys.exit(f"{error} (--cpu tries the benchmark without one)")
        print(f"## {_title(model)}\n\n{machine.processor()}. {device}.\n", flush=True)
        results = []
        for result in measure(made, asked):
            results.append(result)
            print("\n".join(table.one_load(result)), end="\n\n", flush=True)
        print("\n".join(table.all_loads(results)))
        print("\n".join(["", *_kernels(made, asked.peers)]))
    different = [line for result in results for line in table.differing(result)]
    print("\n".join(different))
    return int(bool(different))


def measure(made: Materials, asked: argparse.Namespace) -> Iterator[Result]:
    """A result a load, as they come."""
    texts = {name: made.texts(LOADS[name]) for name in asked.loads}
    vectors = _reference(made, texts)
    with ExitStack() as stack:
        workers, absent = dict[str, Worker](), dict[str, str]()
        for name in asked.peers:
            made.tell(f"starting {name}")
            try:
                workers[name] = stack.enter_context(_worker(made, name))
            except WorkerError as error:
                absent[name] = str(error)
        alone = stack.enter_context(Worker(None, "products", made.options({}), made.folder / "products.log"))
        peaks = partial(_peaks, products.operations(on_gpu=made.on_gpu))
        for name in asked.loads:
            entries = [Entry(each, batch, workers[each]) for each in workers for batch in PEERS[each].batches]
            measured = take_turns(
                entries,
                alone,
                texts[name],
                vectors[name],
                asked.passes,
                asked.budget,
                partial(_tell, made, name),
                peaks,
            )
            work = bound.work(made.model.geometry, LOADS[name].lengths)
            yield Result(LOADS[name], work, entries, measured, absent)


def _tell(made: Materials, load: str, step: str) -> None:
    made.tell(f"{load}: {step}")


def _title(model: Model) -> str:
    shape = model.geometry
    return f"{shape.layers} layers of {shape.hidden}, {shape.vocabulary:,} pieces"


def _worker(made: Materials, name: str) -> Worker:
    peer, options = PEERS[name], made.options(PEERS[name].options)
    if peer.environment:
        options["checkpoint"] = made.checkpoint
    # On a GPU all are of this Python; without one, theirs is `make bench`'s.
    environment = None if made.on_gpu else peer.environment
    return Worker(environment, peer.worker, options, made.folder / f"{name}.log")


def _reference(made: Materials, texts: dict[str, list[list[int]]]) -> dict[str, Matrix]:
    """Float32's vectors of each load."""
    found = {}
    with Worker(None, "rows", made.options({"precision": "fp32"}, cpu=True), made.folder / "fp32.log") as worker:
        for name, given in texts.items():
            made.tell(f"float32 vectors of {name}")
            worker.give(given)
            found[name] = worker.vectors(0, len(given))
    return found


def _peaks(operations: int, alone: Worker) -> Peaks:
    """What the device does of large fp16 products alone, in which attention's are done too."""
    peak = operations / min(alone.encode(0).seconds for _ in range(2))
    return Peaks(peak, peak)


def _kernels(made: Materials, names: Sequence[str]) -> Iterator[str]:
    """Which kernels attention was, as CUDA's own profiling interface saw them, by torch's profiler."""
    for name in names if made.on_gpu else ():
        told = made.folder / f"{name}.kernels"
        more = {"kernels": str(told), "texts": made.texts(LOADS["mixed"]), "checkpoint": made.checkpoint}
        options = made.options(PEERS[name].options) | more
        try:
            prepare(None, PEERS[name].worker, options, made.folder / f"{name}-kernels.log")
            yield f"{name}: {told.read_text().strip()}"
        except WorkerError as error:
            yield f"{name}: kernels unknown: {error}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description="ours on a GPU, and its peer")
    parser.add_argument("--layers", type=int, default=24, metavar="N", help="default 24")
    parser.add_argument("--passes", type=int, default=5, metavar="N", help="of each, after a warm-up; default 5")
    parser.add_argument("--budget", type=float, default=20, metavar="SECONDS", help="of a peer on a load; default 20")
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=[*LOADS], metavar="NAME", help=", ".join(LOADS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--threads", type=int, default=4, metavar="N", help="of the CPU, of each worker; default 4")
    parser.add_argument("--cpu", action="store_true", help="without a GPU, with a stand-in for ours' attention")
    return parser


if __name__ == "__main__":
    sys.exit(main())
