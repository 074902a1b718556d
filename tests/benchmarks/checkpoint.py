"""One checkpoint for every peer: the weights our layer is built of, in the form of transformers and of
sentence-transformers.

Its tokenizer reads "<0> <5> <2>" as the tokens 0, 5 and 2, and puts nothing around them: peers that take text alone are
given the very token lists of the others.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from model_layer.catalog import Model
from model_layer.sources import Source, layer_prefix, shapes


def write(source: Source, model: Model, folder: Path) -> None:
    """Write the checkpoint into an empty folder. Raises SourceError."""
    padding = max(model.geometry.first_position - 1, 0)
    save_file(_arrays(model, source), folder / "model.safetensors", metadata={"format": "pt"})
    config = _config(model, padding)
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": f"<{padding}>"}
    sizes = {"max_seq_length": model.context, "do_lower_case": False}
    pooling = {
        "word_embedding_dimension": model.geometry.hidden,
        "pooling_mode_cls_token": model.pooling == "cls",
        "pooling_mode_mean_tokens": model.pooling == "mean",
    }
    for name, value in {
        "config.json": config,
        "tokenizer.json": _numbered(model.geometry.vocabulary),
        "tokenizer_config.json": tokenizer | {"model_max_length": model.context},
        "special_tokens_map.json": {"pad_token": f"<{padding}>"},
        "sentence_bert_config.json": sizes,
        "1_Pooling/config.json": pooling,
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value), encoding="utf-8")


def _arrays(model: Model, source: Source) -> dict[str, Any]:
    shape = model.geometry
    tables = {"word": shape.vocabulary, "position": shape.positions, "token_type": shape.token_types}
    wanted: dict[str, tuple[int, ...]] = {
        f"embeddings.{name}_embeddings.weight": (rows, shape.hidden) for name, rows in tables.items()
    }
    wanted |= {f"embeddings.LayerNorm.{part}": (shape.hidden,) for part in ("weight", "bias")}
    for index in range(shape.layers):
        wanted |= {layer_prefix(index) + name: sizes for name, sizes in shapes(shape).items()}
    return {name: source.tensor(name, *sizes) for name, sizes in wanted.items()}


def _config(model: Model, padding: int) -> dict[str, Any]:
    shape, roberta = model.geometry, model.geometry.first_position > 0
    return {
        "architectures": ["XLMRobertaModel" if roberta else "BertModel"],
        "model_type": "xlm-roberta" if roberta else "bert",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.token_types,
        "layer_norm_eps": shape.norm_epsilon,
        "hidden_act": "gelu",
        "pad_token_id": padding,
        "torch_dtype": "float32",
    }


def _numbered(vocabulary: int) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {f"<{n}>": n for n in range(vocabulary)}, "unk_token": "<0>"},
    }
