"""How cost grows with length and company: rates of texts of one length, alone and sixteen at once, and their plot."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.benchmarks.loads import Load, uniform
from tests.benchmarks.peers import OURS, PEERS
from tests.benchmarks.plot import Line, chart
from tests.benchmarks.table import Result

SVG = Path(__file__).parent / "sweep.svg"
PEERS_SHOWN = (OURS, "openvino-static-streams", "sentence-transformers-onnx", "sentence-transformers")
COUNTS = (1, 16)
_LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_MOST = 8192  # tokens of one load


def loads(context: int, *, long: bool) -> list[Load]:
    """Up to 2,048 tokens a text unless it may take longer."""
    lengths = [length for length in _LENGTHS if length <= (context if long else min(context, 2048))]
    return [uniform(count, length) for count in COUNTS for length in lengths if count * length <= _MOST]


def lines(results: Sequence[Result]) -> Iterator[Line]:
    """A colour a peer, at the batch size that suits it best; dashed where texts come sixteen at once."""
    for colour, peer in enumerate(dict.fromkeys(entry.peer for result in results for entry in result.entries)):
        for count in COUNTS:
            points = [
                (float(result.load.lengths[0]), statistics.median(best.rates(result.work)))
                for result in results
                if len(result.load.lengths) == count and (best := result.best(peer))
            ]
            if points:
                title = PEERS[peer].title.strip("*").split(",")[0]
                yield Line(f"{title}, {count if count > 1 else 'one'} at once", points, colour, count > 1)


def draw(results: Sequence[Result], model: str, threads: int) -> Path:
    title = f"{model}, {threads} threads: tokens a second"
    SVG.write_text(chart(title, "tokens per text", "tokens/s", list(lines(results))), encoding="utf-8")
    return SVG
