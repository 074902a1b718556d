"""What was measured on a GPU, as markdown."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.benchmarks.bound import Peaks, Work
from tests.benchmarks.gpu.peers import COSINES, PEERS, THEIRS
from tests.benchmarks.loads import Load
from tests.benchmarks.peers import OURS
from tests.benchmarks.rounds import Entry


@dataclass(frozen=True)
class Result:
    """Of one load. `absent`: peers that could not be asked, and why."""

    load: Load
    work: Work
    entries: Sequence[Entry]
    peaks: Mapping[int, Peaks]
    absent: Mapping[str, str]

    def best(self, peer: str) -> Entry | None:
        """The peer with the batch size that suits it best."""
        mine = [entry for entry in self.entries if entry.peer == peer and entry.passes]
        return max(mine, key=lambda entry: statistics.median(entry.rates(self.work)), default=None)


def one_load(result: Result) -> Iterator[str]:
    peak = statistics.median(each.fp32 for each in result.peaks.values())
    yield f"**{result.load.name}**: {result.load.about}. Matrix peak in fp16: {peak / 1e12:,.1f} TFLOP/s."
    yield ""
    yield "| | batch | tokens/s, median | ms, median | of sentence-transformers | of the peak | cosine, mean (least) |"
    yield "|---|" + "---:|" * 6
    theirs = result.best(THEIRS)
    for entry in result.entries:
        title, batch = PEERS[entry.peer].title, str(entry.batch or "")
        if entry.fault or entry.cosines is None or not entry.passes:
            yield f"| {title} | {batch} | {(entry.fault or 'not measured')[:120]} |" + " |" * 4
            continue
        rate = statistics.median(entry.rates(result.work))
        took = statistics.median(each.seconds for each in entry.passes.values())
        ratio = f"{entry.over(theirs):.2f}×" if theirs else "–"
        share = f"{entry.share(result.work, 'fp32', result.peaks):.0%}"
        cosines = "{:.5f} ({:.5f})".format(*entry.cosines)
        yield f"| {title} | {batch} | {rate:,.0f} | {took * 1e3:,.1f} | {ratio} | {share} | {cosines} |"
    for peer, reason in result.absent.items():
        yield f"| {PEERS[peer].title} | | {reason[:120]} |" + " |" * 4


def all_loads(results: Sequence[Result]) -> Iterator[str]:
    """Every peer at the batch size that suits it best on each load."""
    yield f"| tokens/s, median (of the peak) | {' | '.join(result.load.name for result in results)} |"
    yield "|---|" + "---:|" * len(results)
    for peer, about in PEERS.items():
        cells = [_cell(result, result.best(peer)) for result in results]
        yield f"| {about.title} | {' | '.join(cells)} |"
    cells = []
    for result in results:
        ours, theirs = result.best(OURS), result.best(THEIRS)
        cells.append(f"{ours.over(theirs):.2f}×" if ours and theirs else "–")
    yield f"| ours, fp16, of theirs | {' | '.join(cells)} |"


def differing(result: Result) -> Iterator[str]:
    """A line on each of ours that failed, or whose vectors are too far from float32's."""
    for entry in result.entries:
        least = COSINES.get(entry.peer)
        if least is None:
            continue
        if entry.cosines is None:
            yield f"{result.load.name}: {entry}: {entry.fault}"
        elif not entry.cosines[1] >= least:
            yield f"{result.load.name}: {entry}: a vector at a cosine of {entry.cosines[1]:.5f}, and not {least}"
    for peer in COSINES.keys() & result.absent.keys():
        yield f"{result.load.name}: {peer}: {result.absent[peer]}"


def _cell(result: Result, entry: Entry | None) -> str:
    if entry is None:
        return "–"
    rate = statistics.median(entry.rates(result.work))
    return f"{rate:,.0f} ({entry.share(result.work, 'fp32', result.peaks):.0%})"
