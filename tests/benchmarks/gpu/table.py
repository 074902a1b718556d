"""What was measured on a GPU, as markdown."""

import statistics
from collections.abc import Iterator, Sequence

from tests.benchmarks.gpu.peers import COSINES, PEERS, THEIRS
from tests.benchmarks.peers import OURS
from tests.benchmarks.rounds import Entry
from tests.benchmarks.table import Result


def one_load(result: Result) -> Iterator[str]:
    peak = result.peak("fp32") / 1e12  # of a GPU both are fp16's
    yield f"**{result.load.name}**: {result.load.about}. Matrix peak in fp16: {peak:,.1f} TFLOP/s."
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
