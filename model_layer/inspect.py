"""A layer as a person wants to see it: what it is, whence, how exact, how large."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from handler.engine.manifest import Manifest

_SCALES = {
    "static": "calibrated: texts share runs",
    "dynamic": "by what is in a run: each text runs alone",
    None: "none",
}
_PRECISIONS = {("cuda", "int8"): "fp16, weights in int8,"}


def lines(folder: Path, found: Manifest) -> Iterator[str]:
    """What `inspect` prints of a layer in this folder."""
    made = datetime.fromtimestamp(found.created, UTC).isoformat(timespec="seconds")
    meaning = "real" if found.weights == "real" else "seeded at random: the vectors mean nothing"
    rows = {
        "model": f"{found.id}  ({', '.join(found.aliases) or 'no aliases'})",
        "weights": meaning,
        "source": f"{found.source}{f', revision {found.revision}' if found.revision else ''}",
        "files": _provenance(found),
        "licence": found.licence + (f"; cl100k_base {found.cl100k_licence}" if found.cl100k_licence else ""),
        "shape": f"{found.layers} layers, {found.dimensions} dimensions, {found.pooling} pooling, "
        f"{found.vocabulary:,} pieces",
        "context": f"{found.context} tokens, {found.content_tokens} of text",
        "outputs": ", ".join(found.outputs),
        "precision": f"{_PRECISIONS.get((found.target, found.precision), found.precision)} for {found.target}: "
        f"{parity(found.parity)}",
        "scales": _SCALES[found.activation_scales],
        "in float32": ", ".join(found.float32) or ("all" if found.precision == "fp32" else "no matrix"),
        "machines": _machines(found),
        "made": f"{made} with onnxruntime {found.onnxruntime}",
        "size": f"{sum(file.bytes for file in found.files.values()) / 1e6:.1f} MB",
    }
    yield str(folder)
    for name, value in rows.items():
        yield f"  {name:<10} {value}"
    for name, file in found.files.items():
        yield f"  {name:<20} {file.bytes / 1e6:8.1f} MB  sha256 {file.sha256}"


def _machines(found: Manifest) -> str:
    if found.target == "cuda":
        return "x86-64 with an NVIDIA GPU, compute capability 7.5 or later"
    packed = f"; packed for {', '.join(found.cpu)} without AMX" if found.cpu else ""
    return f"x86-64, {found.target}, any vector width{packed}"


def _provenance(found: Manifest) -> str:
    if not found.sources:
        return "none: made here"
    if not found.unpinned:
        return f"{len(found.sources)}, each with the SHA-256 that the catalog pins"
    return f"{len(found.sources)}; not pinned, as found: " + ", ".join(
        f"{name} sha256 {found.sources[name]}" for name in found.unpinned
    )


def parity(figures: dict[str, float]) -> str:
    """The figures of `parity.figures` in one line."""
    figures = defaultdict(lambda: float("nan"), figures)  # a manifest may have been tampered with
    shown = f"cosine to fp32 {_parity(figures, '')} texts"
    if "sparse_overlap" in figures:
        shown += f", sparse terms {figures['sparse_overlap']:.1%}"
    if "docstrings.texts" in figures:
        shown += f"; {_parity(figures, 'docstrings.')} sentences of docstrings"
    return shown


def _parity(figures: dict[str, float], of: str) -> str:
    return (
        f"{figures[f'{of}mean_cosine']:.4f} (1st percentile {figures[f'{of}percentile_cosine']:.4f}, least "
        f"{figures[f'{of}least_cosine']:.4f}), Spearman {figures[f'{of}spearman']:.4f}, nearest neighbour equal for "
        f"{figures[f'{of}neighbours']:.1%} and ten nearest for {figures[f'{of}top_ten']:.1%} of "
        f"{figures[f'{of}texts']:.0f}"
    )
