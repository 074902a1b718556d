"""Which of a worker's kernels were attention's, by torch's profiler, which sees every kernel of its process."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.workers.serve import Loaded, Options

_ATTENTION = re.compile(r"flash|fmha|attention|softmax|mha", re.IGNORECASE)


def told_of(load: Callable[[Options], Loaded], batch: int = 0) -> Callable[[Options], None]:
    """What encodes `options["texts"]` once, warm, and writes the names of attention's kernels into
    `options["kernels"]`, each with its share of the device's time."""

    def tell(options: Options) -> None:
        from torch.profiler import ProfilerActivity, profile

        peer = load(options)
        given = peer.given(options["texts"])
        peer.encode(given, batch)
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            peer.encode(given, batch)
        times = {each.key: each.self_device_time_total for each in seen.key_averages()}
        total = sum(times.values())
        found = [f"{name} ({time / total:.1%})" for name, time in times.items() if time and _ATTENTION.search(name)]
        Path(options["kernels"]).write_text("; ".join(found) or "no kernel of that name")

    return tell
