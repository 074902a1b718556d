"""A finished layer judged: its files, what its manifest says, its numbers and its vectors."""

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np

from handler.engine import manifest
from handler.engine.manifest import GRAPH, TOKENIZER, UNIGRAM, Manifest
from model_layer import cl100k, encoder, facts, fp32, heads, packed, parity, run, unigram
from model_layer.catalog import MODELS
from model_layer.checkpoint import provenance
from model_layer.writer import floats

# A layer that was verified on another CPU may differ by that CPU's products; by more, something is wrong with it.
DRIFT = 0.002


def faults(folder: Path) -> tuple[list[str], dict[str, float]]:
    """What is wrong with a finished layer, a sentence each, and its parity measured anew (empty if it was not).

    Every file is hashed, every vector of the reference is made again; of the manifest nothing is believed that the
    catalog or the layer's files can say. What is built on a fault is not looked at. Raises manifest.LayerError without
    a manifest.
    """
    found = manifest.load(folder)
    wrong: list[str] = []
    try:
        for judge in (partial(manifest.faults, hashes=True), _names, _facts, _numbers):
            wrong.extend(judge(found, folder))
            if wrong:
                return wrong, {}
        return _vectors(found, folder)
    except Exception as error:  # onnx, onnxruntime, numpy and tokenizers raise what they like over a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        return [*wrong, f"its files cannot be read or do not belong together: {reason}"], {}


def _names(found: Manifest, folder: Path) -> Iterator[str]:
    """Of a model that is none, of files that it should have or should not."""
    if (model := MODELS.get(found.id)) is None:
        yield f"{found.id} is no model of the catalog"
        return
    wanted, there = facts.names(model, found.target), {path.name for path in folder.iterdir()} - {manifest.NAME}
    optional = {manifest.CL100K, manifest.UNIGRAM}
    if missing := wanted - found.files.keys():
        yield f"{', '.join(sorted(missing))}: not there, and {model.id} has it"
    if found.target != "cuda":
        optional.add(manifest.PACKED)
    if stray := there - (found.files.keys() & (wanted | optional)):
        yield f"{', '.join(sorted(stray))}: no file of a layer, or not in the manifest"
    if manifest.CL100K in found.files and found.files[manifest.CL100K].sha256 != cl100k.SHA256:
        yield f"{manifest.CL100K} is not the vocabulary that OpenAI publishes"


def _facts(found: Manifest, folder: Path) -> Iterator[str]:
    """Of a graph that is not the catalog's, and of what a build would write of these files in another way."""
    model, written = MODELS[found.id], encoder.read(folder)
    if model.weights == "seeded":
        model = model.with_layers(written.geometry.layers)
    built = replace(model.geometry, token_types=1)
    for name in (field.name for field in fields(built)):
        if (has := getattr(written.geometry, name)) != (should := getattr(built, name)):
            yield f"the graph has {name} {has}, {model.id} {should}"
    if written.pooling != model.pooling:
        yield f"the graph has {written.pooling} pooling, {model.id} {model.pooling}"

    ready = folder / UNIGRAM
    should_hold = unigram.form((folder / TOKENIZER).read_text(encoding="utf-8"))
    if should_hold != (ready.read_text(encoding="utf-8") if ready.exists() else None):
        yield f"{UNIGRAM} is not what {TOKENIZER} makes it"

    yield from packed.faults(folder, found.onnxruntime)
    yield from fp32.faults(folder)

    expected = facts.describe(model, folder, found.asked, provenance(model, found.sources))
    expected = replace(expected, created=found.created, parity=found.parity, files=found.files)
    for name in (field.name for field in fields(expected)):
        if (says := getattr(found, name)) != (should := getattr(expected, name)):
            yield f"the manifest says that {name} is {says!r}, it is {should!r}"


def _numbers(found: Manifest, folder: Path) -> Iterator[str]:
    """Of weights that are not finite, whether a text reads them or not."""
    for graph_name in sorted({GRAPH, heads.GRAPH} & found.files.keys()):
        for name, array in floats(folder / graph_name):
            if not np.isfinite([array.min(), array.max()]).all():
                yield f"{name} of {graph_name} holds NaN or infinity"


def _vectors(found: Manifest, folder: Path) -> tuple[list[str], dict[str, float]]:
    """What is wrong with the layer's outputs, and their parity anew."""
    model = MODELS[found.id]
    inputs, reference = parity.load_reference(folder / parity.REFERENCE)
    own, wanted = parity.texts(model.verification), parity.inputs(model)
    if inputs[: len(own)] != own or len(inputs) != len(wanted):  # another Python has other docstrings
        return [f"{parity.REFERENCE} holds other texts than this version's"], {}
    outputs = run.outputs(folder, inputs, found.control_ids)
    if not outputs.finite:
        return ["some output of it is not finite"], {}
    measured = parity.figures(outputs, reference, model)
    wrong = list(parity.shortfalls(measured, model.required(found.target, found.precision)))
    for name in sorted(measured.keys() | found.parity.keys()):
        value, recorded = (each.get(name, float("nan")) for each in (measured, found.parity))
        # Shares of texts move in whole texts.
        drift = DRIFT if "cosine" in name or name.endswith("spearman") else 5 / len(own)
        if not abs(value - recorded) <= drift:
            wrong.append(f"{name} is {value}, the manifest recorded {recorded}")
    return wrong, measured
