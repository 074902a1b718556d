"""`make bench`: ours and its peers on the same weights and the same token lists, taking turns, in one table.

Every peer is a warm process of an environment of its own with the same number of threads. Vectors are checked against
float32; the exit status is 1 where ours are others, and no time is ever a failure.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from tests.benchmarks import bound, machine, sweep, table
from tests.benchmarks.loads import LOADS, Load, within
from tests.benchmarks.materials import Materials, gather
from tests.benchmarks.peers import OURS, PEERS, REFERENCE
from tests.benchmarks.process import Matrix, Worker, WorkerError
from tests.benchmarks.rounds import Entry, take_turns
from tests.benchmarks.table import Result

SEEDED, REAL = "bge-m3-seeded", "all-minilm-l6-v2"


@dataclass(frozen=True)
class Plan:
    peers: tuple[str, ...]
    loads: tuple[Load, ...]
    passes: int
    budget: float  # seconds that one peer may have of one load
    batches: int | None = None  # how many of a peer's batch sizes are tried; None: all


def measure(materials: Materials, chosen: Plan) -> Iterator[Result]:
    """A result a load, as they come. Peers that cannot be asked are in it with the reason."""
    vectors = _reference(materials, chosen.loads)
    with ExitStack() as stack:
        workers, absent = _start(materials, chosen.peers, stack)
        alone = stack.enter_context(_worker(materials, "peaks", None, "peaks", {"threads": materials.threads}))
        for load in chosen.loads:
            entries = [
                Entry(name, batch, worker)
                for name, worker in workers.items()
                for batch in PEERS[name].batches[: chosen.batches]
            ]
            texts = materials.texter.texts(load.lengths)
            measured = take_turns(
                entries,
                alone,
                texts,
                vectors[load.name],
                chosen.passes,
                chosen.budget,
                partial(_tell, materials, load),
            )
            yield Result(load, bound.work(materials.model.geometry, load.lengths), entries, measured, absent)


def _start(materials: Materials, names: Sequence[str], stack: ExitStack) -> tuple[dict[str, Worker], dict[str, str]]:
    """Warm workers, and why the others are none."""
    workers, absent = {}, {}
    for name in names:
        peer = PEERS[name]
        if reason := materials.missing(peer):
            absent[name] = reason
            continue
        try:
            options = materials.options(peer)
            materials.tell(f"{materials.name}: starting {name}")
            workers[name] = stack.enter_context(_worker(materials, name, peer.environment, peer.worker, options))
        except WorkerError as error:
            absent[name] = str(error)
    return workers, absent


def _reference(materials: Materials, loads: Sequence[Load]) -> dict[str, Matrix]:
    """The float32 layer's vectors of each load; its process is gone before others are measured."""
    found = {}
    peer = PEERS[REFERENCE]
    with _worker(materials, "reference", None, peer.worker, materials.options(peer)) as worker:
        for load in loads:
            materials.tell(f"{materials.name}: float32 vectors of {load.name}")
            worker.give(materials.texter.texts(load.lengths))
            found[load.name] = worker.vectors(0, len(load.lengths))
    return found


def _worker(
    materials: Materials, name: str, environment: str | None, module: str, options: dict[str, object]
) -> Worker:
    return Worker(environment, module, options, materials.folder / f"{name}.log")


def _environments(names: Sequence[str]) -> set[str]:
    return {environment for name in names if (environment := PEERS[name].environment)}


def _tell(materials: Materials, load: Load, step: str) -> None:
    materials.tell(f"{materials.name}, {load.name}: {step}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS, metavar="NAME", help=f"of {', '.join(PEERS)}; default all but *-avx2"
    )
    parser.add_argument("--loads", nargs="+", choices=LOADS, metavar="NAME", help=f"of {', '.join(LOADS)}")
    parser.add_argument("--long", action="store_true", help="also the loads that take minutes")
    parser.add_argument("--models", nargs="+", choices=(SEEDED, REAL), default=[SEEDED, REAL], help="default both")
    parser.add_argument("--layers", type=int, metavar="N", help=f"of {SEEDED}; default 24, fewer fit the cache")
    parser.add_argument("--passes", type=int, default=5, metavar="N", help="of each, after a warm-up; default 5")
    parser.add_argument("--budget", type=float, default=60, metavar="SECONDS", help="of a peer on a load; default 60")
    parser.add_argument("--batches", type=int, metavar="N", help="how many of a peer's batch sizes; default all")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="default all")
    parser.add_argument(
        "--quick", action="store_true", help=f"{REAL}, two passes, one batch size: within three minutes"
    )
    parser.add_argument("--sweep", action="store_true", help="texts of one length, 1 and 16 at once, and a plot")
    return parser


def plan(asked: argparse.Namespace, context: int) -> Plan:
    """What the words of the call come to for a model of this context."""
    if asked.sweep:
        loads = sweep.loads(context, long=asked.long)
    else:
        wanted = asked.loads or [name for name, load in LOADS.items() if asked.long or not load.long]
        loads = [cut for name in wanted if (cut := within(LOADS[name], context))]
    usual = sweep.PEERS_SHOWN if asked.sweep else [name for name, peer in PEERS.items() if not peer.extra]
    names = dict.fromkeys([OURS, *(asked.peers or usual)])
    if asked.quick:
        return Plan(tuple(names), tuple(loads), passes=2, budget=2, batches=1)
    return Plan(tuple(names), tuple(loads), asked.passes, asked.budget, asked.batches)


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no halted worker stays behind
    start = time.monotonic()

    def tell(step: str) -> None:
        print(f"{time.monotonic() - start:7.1f} s  {step}", file=sys.stderr, flush=True)

    ours_differ = False
    for name in [REAL] if asked.quick else asked.models[: 1 if asked.sweep else None]:
        materials = gather(name, asked.layers, asked.threads, tell)
        chosen = plan(asked, materials.model.context)
        results = []
        print(f"\n## {materials.name}, {asked.threads} threads\n\n{machine.processor()}.", flush=True)
        print(f"Versions: {machine.versions(_environments(chosen.peers))}.\n", flush=True)
        for result in measure(materials, chosen):
            results.append(result)
            print("\n".join([*table.one_load(result), "", f"Meanwhile: {machine.busy()}."]), end="\n\n", flush=True)
        print("\n".join(table.all_loads(results)))
        if asked.sweep:
            print(f"\nplotted in {sweep.draw(results, materials.name, asked.threads)}")
        for entry, line in table.differing(results):
            print(f"† {line}")
            ours_differ |= entry.peer == OURS
    return int(ours_differ)


if __name__ == "__main__":
    sys.exit(main())
