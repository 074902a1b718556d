"""The pipeline of every model: source → graph → quantization → parity against the unquantized graph → manifest."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from handler.engine import manifest
from model_layer import calibration, cuda, facts, graph, heads, packed, parity, run, smoothing, unigram
from model_layer.catalog import Model
from model_layer.checkpoint import Provenance, SourceError
from model_layer.mixed import Bench, needed
from model_layer.run import Outputs
from model_layer.sources import Source
from model_layer.tokenizer import TokenizerError, layer_form

# What a build can be asked for, by its target: the precision, or CUDA's weights.
PRECISIONS = {"cpu": ("int8", "mixed", "fp32"), "cuda": ("fp16", "int8")}


class BuildError(Exception):
    """The layer cannot be made as it was asked for; the message says why, and which precision passes if that is it."""


def is_complete(folder: Path, model: Model, precision: str, *, with_cl100k: bool, target: str = "cpu") -> bool:
    """Whether the folder holds a finished layer of this model, revision and depth that was asked for in this precision
    for this target, judged by its files' sizes, and with cl100k's vocabulary where that is asked for."""
    try:
        found = manifest.load(folder)
        manifest.check(found, folder, hashes=False)
    except manifest.LayerError:
        return False
    names = facts.names(model, target) | ({manifest.CL100K} if with_cl100k else set())
    if not names <= found.files.keys():
        return False
    wanted = (model.id, model.revision, model.geometry.layers, target, precision)
    return (found.id, found.revision, found.layers, found.target, found.asked) == wanted


def build(
    model: Model,
    origin: tuple[Source, Provenance],
    precision: str,
    folder: Path,
    progress: Callable[[str], None],
    cl100k_base: bytes | None = None,
    target: str = "cpu",
) -> None:
    """Make the layer beside `folder` and move it there when it is whole: an interrupted build leaves no half layer.

    `precision`: one of PRECISIONS[target]. Raises BuildError where `folder` holds anything but a layer: nothing of
    anybody's is ever deleted.
    """
    folder = folder.resolve()
    check(model, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        layer = Path(made) / "layer"
        layer.mkdir(mode=0o755)
        if cl100k_base is not None:
            (layer / manifest.CL100K).write_bytes(cl100k_base)
        _fill(model, *origin, (target, precision), layer, progress).save(layer)
        for path in layer.iterdir():
            path.chmod(0o644)  # the function's user is another than the builder's
        _check_place(folder)  # again: somebody may have put something there in these minutes
        if folder.exists():
            folder.rename(Path(made) / "old")  # and away with `made`
        layer.rename(folder)


def check(model: Model, folder: Path) -> None:
    """Raise BuildError for what would only come out at the end of a build: what it may not replace, a date that is
    none, matrices that do not exist."""
    _check_place(folder)
    try:
        facts.created()
        graph.unquantized(model)
    except ValueError as error:
        raise BuildError(str(error)) from None


def _check_place(folder: Path) -> None:
    if folder.exists() and not _may_be_replaced(folder):
        raise BuildError(f"{folder} is no model layer and not empty: choose another place with --out.")


def _may_be_replaced(folder: Path) -> bool:
    """Whether it is an empty folder, or a layer with nothing else in it."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or (manifest.NAME in names and names <= facts.NAMES)


def _fill(
    model: Model,
    source: Source,
    provenance: Provenance,
    asked: tuple[str, str],
    layer: Path,
    progress: Callable[[str], None],
) -> manifest.Manifest:
    target, precision = asked
    progress("tokenizer")
    try:
        tokenizer = layer_form(source.tokenizer(), model.geometry.vocabulary)
    except TokenizerError as error:
        raise SourceError(f"tokenizer.json cannot be used: {error}.") from None
    (layer / manifest.TOKENIZER).write_text(tokenizer.text, encoding="utf-8")
    if (ready := unigram.form(tokenizer.text)) is not None:
        (layer / manifest.UNIGRAM).write_text(ready, encoding="utf-8")
    if model.heads:
        heads.write(source, model.geometry.hidden, layer)

    inputs = parity.inputs(model)
    with tempfile.TemporaryDirectory(dir=layer.parent) as made:
        unquantized = layer if precision == "fp32" else Path(made)
        _write(model, source, unquantized, None, progress)
        progress(f"vectors of {len(inputs)} texts")
        reference = found = run.outputs(layer, inputs, tokenizer.control_ids, unquantized)
        _check_finite(model, reference)
        bench = Bench(layer, unquantized, inputs, reference, tokenizer.control_ids)
        if target == "cuda":
            found = _halve(model, source, bench, precision, progress)
        elif precision != "fp32":
            model, found = _quantize(model, source, bench, progress, mixed=precision == "mixed")
    parity.save_reference(layer / parity.REFERENCE, inputs, reference)
    _check_finite(model, found)
    if target == "cpu" and precision != "fp32":
        progress("matrices as onnxruntime packs them")
        packed.write(layer)

    progress("SHA-256 of the files")
    described = facts.describe(model, layer, precision, provenance)
    measured = parity.figures(found, reference, model)
    return replace(described, created=facts.created(), parity=measured, files=facts.files(layer))


def _check_finite(model: Model, outputs: Outputs) -> None:
    if not outputs.finite:
        raise BuildError(f"{model.id} gives vectors that are not finite: its weights are damaged. Fetch them again.")


def _halve(model: Model, source: Source, bench: Bench, weights: str, progress: Callable[[str], None]) -> Outputs:
    """Write the layer's encoder for CUDA; its outputs. Raises BuildError where it is not exact enough."""
    cuda.write(source, model, bench.layer, weights, lambda what: progress(f"{weights}: {what}"))
    progress(f"vectors of {len(bench.inputs)} texts, to compare, without a GPU")
    found = bench.outputs()
    _check_finite(model, found)
    figures = parity.figures(found, bench.reference, model)
    if short := list(parity.shortfalls(figures, model.required("cuda", weights))):
        other = " --weights fp16 may pass." if weights == "int8" else ""
        raise BuildError(f"{model.id} with weights in {weights} is not exact enough: {'; '.join(short)}.{other}")
    return found


def _quantize(
    model: Model, source: Source, bench: Bench, progress: Callable[[str], None], *, mixed: bool
) -> tuple[Model, Outputs]:
    """Write the layer's encoder in int8; the model with the matrices that it leaves in float32, and its outputs.

    Raises BuildError where it is not exact enough: if `mixed`, with as few matrices in float32 as make it so.
    """
    progress("ranges of the activations")
    samples = parity.texts(model.calibration)
    ranges = calibration.ranges(bench.unquantized, bench.layer, samples)
    factors = smoothing.factors(source, model.geometry, ranges)
    static = graph.Quantization(factors, calibration.scales(ranges, factors))
    dynamic = graph.Quantization(factors, None)

    def measured(variant: Model, quantization: graph.Quantization) -> tuple[Outputs, list[str]]:
        _write(variant, source, bench.layer, quantization, progress)
        progress(f"vectors of {len(bench.inputs)} texts, to compare")
        found = bench.outputs()
        return found, bench.shortfalls(found, model)

    found, short = measured(model, static)
    if short:
        progress(f"static scales of the activations are not exact enough: {'; '.join(short)}")
        found, short = measured(model, dynamic)
    if not short:
        return model, found
    progress("not exact enough: what each matrix costs")
    with tempfile.TemporaryDirectory(dir=bench.layer.parent) as folder:
        hurt = needed(bench, model, Path(folder), progress)
    reason = f"{model.id} in int8 is not exact enough: {'; '.join(short)}."
    if hurt is None:
        raise BuildError(f"{reason} --precision fp32 passes.")
    if not mixed:
        raise BuildError(
            f"{reason} --precision mixed passes, which leaves in float32 what hurts most ({', '.join(hurt)}); "
            "--precision fp32 passes."
        )
    model = replace(model, unquantized=(*model.unquantized, *hurt))
    found, short = measured(model, dynamic)
    if short:  # the variant that was tried is the same graph
        raise BuildError(f"{model.id} with {', '.join(hurt)} in float32 passed and does not pass: {'; '.join(short)}.")
    return model, found


def _write(
    model: Model, source: Source, folder: Path, quantization: graph.Quantization | None, progress: Callable[[str], None]
) -> None:
    def step(what: str) -> None:
        progress(f"{'fp32' if quantization is None else 'int8'}: {what}")

    graph.write(source, model, folder, quantization, step)
