"""The shapes of the wire as JSON Schema (2020-12), as data: what the OpenAPI document refers to."""

from collections.abc import Mapping
from typing import Any

from handler.contract.embeddings import FORMATS, MAX_TOKENS, SERVED_DTYPES, SERVED_TYPES, WIDTHS, Rules
from handler.contract.inputs import MAX_INPUTS
from handler.contract.models import Model, Models

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def components(models: Models, rules: Rules) -> dict[str, Schema]:
    """Every named schema; names, widths and outputs are those of the models served here, inputs those it takes."""
    return {
        "EmbeddingRequest": _request(models, rules),
        "EmbeddingResponse": _response(rules),
        "EmbeddingResult": _RESULT,
        "Embedding": _ITEM,
        "SparseEmbedding": _SPARSE,
        "MultiVectorEmbedding": _MULTI_VECTOR,
        "Usage": _USAGE,
        "Model": _MODEL,
        "ModelList": _page(ref("Model")),
        "Price": _PRICE,
        "PriceList": _page(ref("Price"), generated_at=_TIME),
        "ModelCard": _CARD,
        "UsagePage": _bucketed(_USAGE_RESULT),
        "CostsPage": _bucketed(_COSTS_RESULT),
        "OwnUsage": _OWN_USAGE,
        "Error": _ERROR,
        "Status": _object({"status": {"type": "string"}}),
    }


def _object(properties: Mapping[str, Schema], **optional: Schema) -> Schema:
    """An object with all of `properties`; those in `optional` may be absent."""
    return {"type": "object", "required": list(properties), "properties": {**properties, **optional}}


def _page(item: Schema, **extra: Schema) -> Schema:
    return _object({"object": {"const": "list"}, "data": _array(item), **extra})


def _bucketed(result: Schema) -> Schema:
    """A page of usage or costs."""
    bucket = {"object": {"const": "bucket"}, "start_time": _INTEGER, "end_time": _INTEGER, "results": _array(result)}
    more: Schema = {"has_more": {"type": "boolean"}, "next_page": _NAME}
    return _object({"object": {"const": "page"}, "data": _array(_object(bucket)), **more})


def _array(items: Schema, about: str = "", **bounds: int) -> Schema:
    return {"type": "array", "items": items} | bounds | ({"description": about} if about else {})


def _optional(kind: str, about: str, **more: Any) -> Schema:
    """A field for which null is as good as absent."""
    return {"type": [kind, "null"], "description": about} | more


def _choice(values: tuple[str, ...], default: str, about: str) -> Schema:
    return {"enum": [*values, None], "default": default, "description": about}


_INTEGER: Schema = {"type": "integer", "minimum": 0}
_NUMBER: Schema = {"type": "number"}
_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": ["string", "null"]}
_NULL: Schema = {"type": "null"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_SUPPORTS: Schema = _array({"enum": ["embeddings", "sparse", "multi_vector"]})
_TOKEN_IDS: Schema = _array(_INTEGER, "One text as token ids.", minItems=1)


def _request(models: Models, rules: Rules) -> Schema:
    names = [name for model in models.all for name in model.names]
    widths = sorted({model.dimensions for model in models.all})
    text = _TEXT | ({"minLength": 1} if rules.reject_empty else {})
    inputs = [
        text | {"description": "One text."},
        _array(text, "Several texts.", minItems=1, maxItems=MAX_INPUTS),
        _TOKEN_IDS,
        _array(_TOKEN_IDS, "Several texts as token ids.", minItems=1, maxItems=MAX_INPUTS),
    ]
    of_ids = "Token ids mean what the deployment's TOKEN_ARRAYS says." if rules.token_arrays else "No token ids."
    return _object(
        {
            "model": {"enum": names, "description": "An id or alias, compared exactly."},
            "input": {
                "description": f"What to embed: {' '.join(_limits(model) for model in models.all)} A request may have "
                f"{MAX_TOKENS:,} tokens. {of_ids}",
                "anyOf": inputs if rules.token_arrays else inputs[:2],
            },
        },
        encoding_format=_choice(FORMATS, "float", "Decimal digits, or base64 of little-endian float32; the same bits."),
        dimensions=_optional("integer", "The model's own width.", enum=[*widths, None]),
        user=_optional("string", "Unused."),
        truncate=_optional(
            "boolean",
            "true: of a text beyond the context the head is embedded. false: it is refused.",
            default=rules.truncate,
        ),
        embedding_types=_optional(
            "array",
            "The outputs to return.",
            items={"enum": list(SERVED_TYPES)},
            minItems=1,
            default=["dense"],
        ),
        output_dtype=_choice(SERVED_DTYPES, "float", "Type of `embedding`'s numbers."),
        multi_vector_dtype=_choice(WIDTHS, "float16", "Width of multi-vector base64."),
    )


def _limits(model: Model) -> str:
    special = model.context - model.content_tokens
    return f"with {model.id} a text may have {model.content_tokens:,} tokens without its {special} special ones."


def _response(rules: Rules) -> Schema:
    averaged = _array(_INTEGER, "Indexes of token-id inputs embedded in windows; only where one was.")
    return _object(
        {"object": {"const": "list"}, "data": _array(ref("Embedding")), "model": _TEXT, "usage": ref("Usage")},
        truncated=_array(_INTEGER, "Indexes of inputs that were cut, ascending; only where one was."),
        **({"averaged": averaged} if rules.token_arrays else {}),
    )


_RESULT = _object(
    {
        "object": {"const": "embedding.result"},
        "url": {"type": "string", "format": "uri", "description": "Where the whole answer is, an EmbeddingResponse."},
        "expires_at": _INTEGER | {"description": "Unix second until which the address opens it."},
    }
)
_ITEM = _object(
    {
        "object": {"const": "embedding"},
        "index": _INTEGER | {"description": "Position of its input."},
        "embedding": {
            "description": "Numbers, or their bytes in base64 if that was asked. Empty without the dense output.",
            "anyOf": [_array(_NUMBER), _TEXT | {"contentEncoding": "base64"}],
        },
    },
    scale=_NUMBER | {"description": "Of int8 and uint8: a number times it is about the float."},
    sparse_embedding=ref("SparseEmbedding"),
    multi_vector_embedding={"anyOf": [ref("MultiVectorEmbedding"), _array(_array(_NUMBER))]},
)
_SPARSE = _object({"indices": _array(_INTEGER, "Token ids, ascending."), "values": _array(_NUMBER)})
_MULTI_VECTOR = _object(
    {
        "dtype": {"enum": ["float16", "float32"]},
        "shape": _array(_INTEGER, "Rows and dimensions.", minItems=2, maxItems=2),
        "data": _TEXT | {"contentEncoding": "base64"},
    }
)
_USAGE = _object({"prompt_tokens": _INTEGER, "total_tokens": _INTEGER})
_MODEL = _object(
    {
        "id": _TEXT,
        "object": {"const": "model"},
        "created": _INTEGER | {"description": "Unix seconds: when the model layer was built."},
        "owned_by": _TEXT,
        "category": {"const": "embedding"},
        "supports": _SUPPORTS,
        "context_window": _INTEGER | {"description": "Tokens of a text with its special ones."},
        "dimensions": _INTEGER,
        "input_per_mtok": _NUMBER | {"description": "USD per million tokens."},
        "output_per_mtok": _NUMBER,
        "aliases": _array(_TEXT),
        "quantization": {"enum": ["int8", "fp16", "fp32"]},
        "weights": {"enum": ["real", "seeded"], "description": "seeded: the vectors mean nothing."},
        "revision": _NAME,
    },
    alias_of=_TEXT | {"description": "The canonical id, in the row of an alias."},
)
_PRICE = _object(
    {
        "model": _TEXT,
        "currency": {"const": "USD"},
        "effective_at": _TIME,
        "input_per_mtok": _NUMBER,
        "output_per_mtok": _NUMBER,
        "cached_input_per_mtok": _NULL,
        "unit_price_usd": _NULL,
        "billing_unit": {"const": "tokens"},
        "resolution_tier": _NULL,
        "quality_tier": _NULL,
        "batch_input_per_mtok": _NUMBER,
    }
)
_CARD = _object(
    {
        "slug": _TEXT,
        "model_name": _TEXT | {"description": "The value for `model`."},
        "display_name": _TEXT,
        "description": _TEXT,
        "category": {"const": "embedding"},
        "context_window": _INTEGER,
        "max_output": _INTEGER,
        "input_per_mtok": _NUMBER,
        "output_per_mtok": _NUMBER,
        "supports": _SUPPORTS,
        "pricing": _array({}),
        "health_status": {"enum": ["healthy", "unhealthy"]},
        "provider": _TEXT,
    }
)
_GROUPED: dict[str, Schema] = {"project_id": _NAME, "user_id": _NULL, "api_key_id": _NAME}  # null: not grouped by
_USAGE_RESULT = _object(
    {
        "object": {"const": "organization.usage.embeddings.result"},
        "input_tokens": _INTEGER,
        "num_model_requests": _INTEGER,
        **_GROUPED,
        "model": _NAME,
    }
)
_COSTS_RESULT = _object(
    {
        "object": {"const": "organization.costs.result"},
        "amount": _object({"value": _NUMBER | {"description": "Exact."}, "currency": {"const": "usd"}}),
        "line_item": _NAME,
        **_GROUPED,
        "api_source": {"enum": ["unlabeled", None]},
        "quantity": {"type": ["integer", "null"], "description": "Tokens, where the line item is told."},
        "quantity_unit": {"enum": ["tokens", None]},
    }
)
_SPENT: dict[str, Schema] = {"spend": _NUMBER, "tokens": _INTEGER, "requests": _INTEGER}
_OF_A_MODEL: dict[str, Schema] = {"model": _TEXT, "modality": {"const": "text"}, **_SPENT}
_OWN_USAGE = _object(
    {
        "object": {"const": "usage"},
        "days": _INTEGER,
        "currency": {"const": "USD"},
        **{f"total_{name}": kind for name, kind in _SPENT.items()},
        "models": _array(_object(_OF_A_MODEL | {"units_consumed": _NULL, "billing_unit": {"const": "tokens"}})),
        "daily": _array(_object({"date": {"type": "string", "format": "date"}, **_SPENT}), "Days with usage alone."),
    }
)
_ERROR = _object({"error": _object({"message": _TEXT, "type": _TEXT, "param": _NAME, "code": _NAME})})
