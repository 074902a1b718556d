"""The pipeline of every model: source → graph → quantization → parity against the unquantized graph → manifest."""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime

from handler.engine import manifest
from model_layer import graph, heads, run, smoothing, verify
from model_layer.catalog import Model
from model_layer.checkpoint import SourceError
from model_layer.mixed import Bench, needed
from model_layer.run import Outputs
from model_layer.sources import Provenance, Source, layer_prefix, shapes
from model_layer.tokenizer import TokenizerError, layer_form

PRECISIONS = ("int8", "mixed", "fp32")
_NAMES = {
    manifest.NAME,
    manifest.GRAPH,
    manifest.WEIGHTS,
    manifest.TOKENIZER,
    heads.GRAPH,
    heads.WEIGHTS,
    verify.REFERENCE,
    manifest.CL100K,
}


class BuildError(Exception):
    """The layer came out worse than the catalog's thresholds; the message says which precision passes."""


def is_complete(folder: Path, model: Model, precision: str, *, with_cl100k: bool) -> bool:
    """Whether the folder holds a finished layer of this model, revision, depth and precision, judged by its files'
    sizes, and with cl100k's vocabulary where that is asked for."""
    try:
        facts = manifest.load(folder)
        manifest.check(facts, folder, hashes=False)
    except manifest.LayerError:
        return False
    if with_cl100k and manifest.CL100K not in facts.files:
        return False
    wanted = (model.id, model.revision, model.geometry.layers, "fp32" if precision == "fp32" else "int8")
    return (facts.id, facts.revision, facts.layers, facts.precision) == wanted


def build(
    model: Model,
    origin: tuple[Source, Provenance],
    precision: str,
    folder: Path,
    progress: Callable[[str], None],
    cl100k_base: bytes | None = None,
) -> None:
    """Make the layer beside `folder` and move it there when it is whole: an interrupted build leaves no half layer.

    Raises BuildError where `folder` holds anything but a layer: nothing of anybody's is ever deleted.
    """
    folder = folder.resolve()
    check_place(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        layer = Path(made) / "layer"
        layer.mkdir(mode=0o755)
        if cl100k_base is not None:
            (layer / manifest.CL100K).write_bytes(cl100k_base)
        facts = _fill(model, *origin, precision, layer, progress)
        facts.save(layer)
        for path in layer.iterdir():
            path.chmod(0o644)  # the function's user is another than the builder's
        if folder.exists():
            folder.rename(Path(made) / "old")  # and away with `made`
        layer.rename(folder)


def check_place(folder: Path) -> None:
    """Raise BuildError where something lies that a build must not replace."""
    if folder.exists() and not _may_be_replaced(folder):
        raise BuildError(f"{folder} is no model layer and not empty: choose another place with --out.")


def _may_be_replaced(folder: Path) -> bool:
    """Whether it is an empty folder, or a layer with nothing else in it."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    try:
        return not names or names <= {manifest.NAME, *manifest.load(folder).files}
    except manifest.LayerError:
        # Of another version: then by the names that a layer's files have.
        return manifest.NAME in names and names <= _NAMES


def _fill(
    model: Model, source: Source, provenance: Provenance, precision: str, layer: Path, progress: Callable[[str], None]
) -> manifest.Manifest:
    progress("tokenizer")
    try:
        tokenizer = layer_form(source.tokenizer(), model.geometry.vocabulary)
    except TokenizerError as error:
        raise SourceError(f"tokenizer.json cannot be used: {error}.") from None
    (layer / manifest.TOKENIZER).write_text(tokenizer.text, encoding="utf-8")
    _check_unquantized(model)
    if model.heads:
        heads.write(source, model.geometry.hidden, layer)

    inputs = verify.texts(model.verification)
    with tempfile.TemporaryDirectory(dir=layer.parent) as made:
        unquantized = layer if precision == "fp32" else Path(made)
        _write(model, source, unquantized, None, progress)
        progress(f"vectors of {len(inputs)} texts")
        reference = found = run.outputs(layer, inputs, tokenizer.control_ids, unquantized)
        if not np.isfinite(reference.dense).all():
            raise BuildError(
                f"{model.id} gives no finite vector for some texts: its weights are damaged. Fetch them again."
            )
        if precision != "fp32":
            bench = Bench(layer, unquantized, inputs, reference, tokenizer.control_ids)
            model, found = _quantize(model, source, bench, progress, mixed=precision == "mixed")
    verify.save_reference(layer / verify.REFERENCE, inputs, reference)

    progress("SHA-256 of the files")
    files = {path.name: manifest.File(path.stat().st_size, manifest.sha256(path)) for path in sorted(layer.iterdir())}
    return manifest.Manifest(
        id=model.id,
        aliases=model.aliases,
        owned_by=model.owned_by,
        description=model.description,
        weights=model.weights,
        licence=model.licence,
        source=model.source,
        revision=model.revision,
        created=int(os.environ.get("SOURCE_DATE_EPOCH", time.time())),
        dimensions=model.geometry.hidden,
        context=model.context,
        special_tokens=tokenizer.special_tokens,
        control_ids=tokenizer.control_ids,
        vocabulary=model.geometry.vocabulary,
        layers=model.geometry.layers,
        pooling=model.pooling,
        outputs=("dense", "token_states", *(("sparse", "multi_vector") if model.heads else ())),
        precision="fp32" if precision == "fp32" else "int8",
        float32=() if precision == "fp32" else model.unquantized,
        target="cpu",
        onnxruntime=onnxruntime.__version__,
        cpu=(),
        parity=verify.parity(found, reference),
        files=files,
        sources=provenance.files,
        unpinned=provenance.unpinned,
    )


def _quantize(
    model: Model, source: Source, bench: Bench, progress: Callable[[str], None], *, mixed: bool
) -> tuple[Model, Outputs]:
    """Write the layer's encoder in int8; the model with the matrices that it leaves in float32, and its outputs.

    Raises BuildError where it is not exact enough: if `mixed`, with as few matrices in float32 as make it so.
    """
    progress("ranges of the activations")
    samples = verify.texts(model.calibration)
    factors = smoothing.factors(source, model.geometry, bench.unquantized, bench.layer, samples)

    def measured(variant: Model) -> tuple[Outputs, list[str]]:
        _write(variant, source, bench.layer, factors, progress)
        progress(f"vectors of {len(bench.inputs)} texts, to compare")
        found = bench.outputs()
        return found, bench.shortfalls(found, model.thresholds)

    found, short = measured(model)
    if not short:
        return model, found
    progress("not exact enough: what each matrix costs")
    with tempfile.TemporaryDirectory(dir=bench.layer.parent) as folder:
        hurt = needed(bench, model.thresholds, Path(folder), progress)
    reason = f"{model.id} in int8 is not exact enough: {'; '.join(short)}."
    if hurt is None:
        raise BuildError(f"{reason} --precision fp32 passes.")
    if not mixed:
        raise BuildError(
            f"{reason} --precision mixed passes, which leaves in float32 what hurts most ({', '.join(hurt)}); "
            "--precision fp32 passes."
        )
    model = replace(model, unquantized=(*model.unquantized, *hurt))
    found, short = measured(model)
    if short:  # the variant that was tried is the same graph
        raise BuildError(f"{model.id} with {', '.join(hurt)} in float32 passed and does not pass: {'; '.join(short)}.")
    return model, found


def _check_unquantized(model: Model) -> None:
    matrices = {graph.WORDS, graph.POSITIONS} | {
        prefix + part.removesuffix(".weight")
        for prefix in map(layer_prefix, range(model.geometry.layers))
        for part, shape in shapes(model.geometry).items()
        if len(shape) == 2
    }
    if unknown := set(model.unquantized) - matrices:
        raise BuildError(f"{model.id} has no matrix {', '.join(sorted(unknown))} to leave in float32.")


def _write(
    model: Model, source: Source, folder: Path, factors: graph.Factors | None, progress: Callable[[str], None]
) -> None:
    def step(what: str) -> None:
        progress(f"{'fp32' if factors is None else 'int8'}: {what}")

    graph.write(source, model, folder, factors, step)
