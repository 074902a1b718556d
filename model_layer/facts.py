"""What a layer's manifest says, by the catalog and the layer's own files: for a build to write, `verify` to compare."""

import os
import time
from pathlib import Path

import onnxruntime

from handler.engine import manifest, packing
from handler.engine.manifest import CL100K, FP32, GRAPH, PACKED, TOKENIZER, UNIGRAM, WEIGHTS, Manifest
from model_layer import cl100k, encoder, graph, heads, parity, tokenizer
from model_layer.catalog import Model
from model_layer.checkpoint import Provenance

_ALWAYS = {GRAPH, WEIGHTS, TOKENIZER, parity.REFERENCE}
_HEADS = {heads.GRAPH, heads.WEIGHTS}
NAMES = {manifest.NAME, CL100K, UNIGRAM, PACKED, FP32, *_ALWAYS, *_HEADS}  # that a file of a layer can have


def names(model: Model, target: str) -> set[str]:
    """The files of a layer of this model, beside its manifest and what depends on the tokenizer and the build."""
    return _ALWAYS | (_HEADS if model.heads else set()) | ({FP32} if target == "cuda" else set())


def describe(model: Model, layer: Path, asked: str, origin: Provenance) -> Manifest:
    """The manifest of a layer whose files lie in the folder: all but its parity, its files' hashes and the date.

    `asked` is the build's --precision, or --weights; where the graph contradicts it, what the graph must have been
    asked for. Raises TokenizerError, and what `encoder.read` does.
    """
    text = tokenizer.read((layer / TOKENIZER).read_text(encoding="utf-8"), model.geometry.vocabulary)
    written = encoder.read(layer)
    if written.target == "cuda" or written.precision == "fp32":
        asked = written.precision
    elif written.float32 != graph.unquantized(model) or asked not in ("int8", "mixed"):
        asked = "mixed"
    return Manifest(
        id=model.id,
        aliases=model.aliases,
        owned_by=model.owned_by,
        description=model.description,
        weights=model.weights,
        licence=model.licence,
        cl100k_licence=cl100k.LICENCE if (layer / CL100K).exists() else None,
        source=model.source,
        revision=model.revision,
        created=0,
        dimensions=model.geometry.hidden,
        context=model.context,
        special_tokens=text.special_tokens,
        control_ids=text.control_ids,
        vocabulary=model.geometry.vocabulary,
        layers=model.geometry.layers,
        pooling=model.pooling,
        outputs=("dense", "token_states", *(("sparse", "multi_vector") if model.heads else ())),
        asked=asked,
        precision=written.precision,
        float32=written.float32,
        activation_scales=written.activation_scales,
        target=written.target,
        onnxruntime=onnxruntime.__version__,
        cpu=packing.FEATURES if (layer / PACKED).exists() else (),
        parity={},
        files={},
        sources=origin.files,
        unpinned=origin.unpinned,
    )


def files(layer: Path) -> dict[str, manifest.File]:
    """Size and SHA-256 of every file in the folder."""
    return {path.name: manifest.File(path.stat().st_size, manifest.sha256(path)) for path in sorted(layer.iterdir())}


def created() -> int:
    """Unix seconds: now, or what SOURCE_DATE_EPOCH says, so that a build can be repeated to the letter. Raises
    ValueError."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        return int(time.time())
    if not given.isdecimal() or int(given) > manifest.LATEST:
        raise ValueError(f"SOURCE_DATE_EPOCH={given}: expected Unix seconds, a whole number")
    return int(given)
