"""What was measured, as markdown: for each load who was how fast, and all loads in one table for README.md."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.bound import Peaks, Work
from tests.benchmarks.loads import Load
from tests.benchmarks.peers import OURS, PEERS
from tests.benchmarks.rounds import Entry

# Vectors below these are said to be others: float32 sums in another order, int8 by another's choices.
SAME = {"fp32": 0.9999, "int8": 0.98}


@dataclass(frozen=True)
class Result:
    """Of one load. `absent`: peers that could not be asked, and why."""

    load: Load
    work: Work
    entries: Sequence[Entry]
    peaks: Mapping[int, Peaks]
    absent: Mapping[str, str]

    @property
    def ours(self) -> Entry | None:
        return next((entry for entry in self.entries if entry.peer == OURS and entry.passes), None)

    def best(self, peer: str) -> Entry | None:
        """The peer with the batch size that suits it best."""
        mine = [entry for entry in self.entries if entry.peer == peer and entry.passes]
        return max(mine, key=lambda entry: statistics.median(entry.rates(self.work)), default=None)

    def peak(self, precision: str) -> float:
        """Operations a second, median of the rounds."""
        return statistics.median(each.int8 if precision == "int8" else each.fp32 for each in self.peaks.values())

    def bound(self, precision: str) -> float:
        return self.work.rate(precision, Peaks(self.peak("int8"), self.peak("fp32")))


def one_load(result: Result) -> Iterator[str]:
    """Every peer with every batch size."""
    load = result.load
    yield f"**{load.name}**: {load.about}."
    yield (
        f"Peaks {result.peak('int8') / 1e9:,.0f} GOPS in int8, {result.peak('fp32') / 1e9:,.0f} in float32: bounds "
        f"{result.bound('int8'):,.0f} and {result.bound('fp32'):,.0f} tokens/s."
    )
    yield ""
    yield (
        "| | batch | tokens/s, median | best | of ours | of the int8 bound | of the fp32 bound | cosine to fp32, mean "
        "(least) | peak memory | cores | passes |"
    )
    yield "|---|" + "---:|" * 10
    for entry in result.entries:
        yield _row(result, entry)
    for peer, reason in result.absent.items():
        yield f"| {PEERS[peer].title} | | {_cell(reason)} |" + " |" * 8


def _row(result: Result, entry: Entry) -> str:
    title, batch = PEERS[entry.peer].title, str(entry.batch or "")
    if entry.fault or entry.cosines is None or not entry.passes:
        return f"| {title} | {batch} | {_cell(entry.fault or 'not measured')} |" + " |" * 8
    rates, (mean, least) = entry.rates(result.work), entry.cosines
    shares = [f"{entry.share(result.work, precision, result.peaks):.0%}" for precision in ("int8", "fp32")]
    return " | ".join(
        [
            f"| {title}",
            batch,
            f"{statistics.median(rates):,.0f}",
            f"{max(rates):,.0f}",
            _ratio(entry, result.ours),
            *shares,
            f"{mean:.5f} ({least:.5f}){_mark(entry)}",
            f"{entry.memory / 1e6:,.0f} MB",
            f"{entry.cores:.1f}",
            f"{len(rates)} |",
        ]
    )


def all_loads(results: Sequence[Result]) -> Iterator[str]:
    """Every peer at the batch size that suits it best on each load: tokens/s, and that over ours."""
    names = [result.load.name for result in results]
    yield f"| tokens/s, median (of ours) | {' | '.join(names)} | peak memory | started in |"
    yield "|---|" + "---:|" * (len(results) + 2)
    asked = dict.fromkeys(entry.peer for result in results for entry in result.entries)
    for peer in asked:
        best = [result.best(peer) for result in results]
        cells = [_best(result, entry) for result, entry in zip(results, best, strict=True)]
        most = max((entry.memory for entry in best if entry), default=0)
        ready = max((entry.worker.start_seconds for entry in best if entry), default=0.0)
        yield f"| {PEERS[peer].title} | {' | '.join(cells)} | {most / 1e6:,.0f} MB | {ready:.1f} s |"
    for precision in ("int8", "fp32"):
        bounds = [f"{result.bound(precision):,.0f}" for result in results]
        yield f"| bound in {precision} | {' | '.join(bounds)} | | |"
    for peer, reason in results[0].absent.items() if results else ():
        yield f"| {PEERS[peer].title} | {_cell(reason)} |" + " |" * (len(results) + 1)


def differing(results: Sequence[Result]) -> Iterator[tuple[Entry, str]]:
    """The entries whose vectors are others than float32's, and a line on each."""
    for result in results:
        for entry in result.entries:
            if entry.cosines and _mark(entry):
                yield entry, f"{result.load.name}: {entry}: a vector at a cosine of {entry.cosines[1]:.5f} to float32's"


def _best(result: Result, entry: Entry | None) -> str:
    if entry is None:
        return "–"
    rate = statistics.median(entry.rates(result.work))
    return f"{rate:,.0f} ({_ratio(entry, result.ours)}{_mark(entry)})"


def _ratio(entry: Entry, ours: Entry | None) -> str:
    return f"{entry.over(ours):.2f}×" if ours and entry.passes.keys() & ours.passes.keys() else "–"


def _mark(entry: Entry) -> str:
    """A dagger where vectors are others than float32's."""
    return " †" if entry.cosines and not entry.cosines[1] >= SAME[PEERS[entry.peer].precision] else ""


def _cell(text: str) -> str:
    return text.replace("|", "/")[:120]
