"""The shapes of the wire as JSON Schema (2020-12), as data: what the OpenAPI document refers to."""

from handler.contract.embeddings import FORMATS, MAX_TOKENS, SERVED_DTYPES, SERVED_TYPES, WIDTHS, Rules
from handler.contract.inputs import MAX_INPUTS
from handler.contract.models import Model, Models
from handler.contract.shapes import (
    INTEGER,
    NAME,
    NULL,
    NUMBER,
    TEXT,
    TIME,
    Schema,
    array_of,
    choice,
    list_of,
    object_of,
    optional,
    ref,
)


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
        "ModelList": list_of(ref("Model")),
        "Price": _PRICE,
        "PriceList": list_of(ref("Price"), generated_at=TIME),
        "ModelCard": _CARD,
        "UsagePage": _bucketed(_USAGE_RESULT),
        "CostsPage": _bucketed(_COSTS_RESULT),
        "OwnUsage": _OWN_USAGE,
        "Error": _ERROR,
        "Status": object_of({"status": {"type": "string"}}),
    }


def _bucketed(result: Schema) -> Schema:
    """A page of usage or costs."""
    bucket = {"object": {"const": "bucket"}, "start_time": INTEGER, "end_time": INTEGER, "results": array_of(result)}
    more: Schema = {"has_more": {"type": "boolean"}, "next_page": NAME}
    return object_of({"object": {"const": "page"}, "data": array_of(object_of(bucket)), **more})


_SUPPORTS: Schema = array_of({"enum": ["embeddings", "sparse", "multi_vector"]})
_TOKEN_IDS: Schema = array_of(INTEGER, "One text as token ids.", minItems=1)


def _request(models: Models, rules: Rules) -> Schema:
    names = [name for model in models.all for name in model.names]
    widths = sorted({model.dimensions for model in models.all})
    text = TEXT | ({"minLength": 1} if rules.reject_empty else {})
    inputs = [
        text | {"description": "One text."},
        array_of(text, "Several texts.", minItems=1, maxItems=MAX_INPUTS),
        _TOKEN_IDS,
        array_of(_TOKEN_IDS, "Several texts as token ids.", minItems=1, maxItems=MAX_INPUTS),
    ]
    of_ids = "Token ids mean what the deployment's TOKEN_ARRAYS says." if rules.token_arrays else "No token ids."
    return object_of(
        {
            "model": {"enum": names, "description": "An id or alias, compared exactly."},
            "input": {
                "description": f"What to embed: {' '.join(_limits(model) for model in models.all)} A request may have "
                f"{MAX_TOKENS:,} tokens. {of_ids}",
                "anyOf": inputs if rules.token_arrays else inputs[:2],
            },
        },
        encoding_format=choice(FORMATS, "float", "Decimal digits, or base64 of little-endian float32; the same bits."),
        dimensions=optional("integer", "The model's own width.", enum=[*widths, None]),
        user=optional("string", "Unused."),
        truncate=optional(
            "boolean",
            "true: of a text beyond the context the head is embedded. false: it is refused.",
            default=rules.truncate,
        ),
        embedding_types=optional(
            "array",
            "The outputs to return.",
            items={"enum": list(SERVED_TYPES)},
            minItems=1,
            default=["dense"],
        ),
        output_dtype=choice(SERVED_DTYPES, "float", "Type of `embedding`'s numbers."),
        multi_vector_dtype=choice(WIDTHS, "float16", "Width of multi-vector base64."),
    )


def _limits(model: Model) -> str:
    special = model.context - model.content_tokens
    return f"with {model.id} a text may have {model.content_tokens:,} tokens without its {special} special ones."


def _response(rules: Rules) -> Schema:
    averaged = array_of(INTEGER, "Indexes of token-id inputs embedded in windows; only where one was.")
    return object_of(
        {"object": {"const": "list"}, "data": array_of(ref("Embedding")), "model": TEXT, "usage": ref("Usage")},
        truncated=array_of(INTEGER, "Indexes of inputs that were cut, ascending; only where one was."),
        **({"averaged": averaged} if rules.token_arrays else {}),
    )


_RESULT = object_of(
    {
        "object": {"const": "embedding.result"},
        "url": {"type": "string", "format": "uri", "description": "Where the whole answer is, an EmbeddingResponse."},
        "expires_at": INTEGER | {"description": "Unix second until which the address opens it."},
    }
)
_ITEM = object_of(
    {
        "object": {"const": "embedding"},
        "index": INTEGER | {"description": "Position of its input."},
        "embedding": {
            "description": "Numbers, or their bytes in base64 if that was asked. Empty without the dense output.",
            "anyOf": [array_of(NUMBER), TEXT | {"contentEncoding": "base64"}],
        },
    },
    scale=NUMBER | {"description": "Of int8 and uint8: a number times it is about the float."},
    sparse_embedding=ref("SparseEmbedding"),
    multi_vector_embedding={"anyOf": [ref("MultiVectorEmbedding"), array_of(array_of(NUMBER))]},
)
_SPARSE = object_of({"indices": array_of(INTEGER, "Token ids, ascending."), "values": array_of(NUMBER)})
_MULTI_VECTOR = object_of(
    {
        "dtype": {"enum": ["float16", "float32"]},
        "shape": array_of(INTEGER, "Rows and dimensions.", minItems=2, maxItems=2),
        "data": TEXT | {"contentEncoding": "base64"},
    }
)
_USAGE = object_of({"prompt_tokens": INTEGER, "total_tokens": INTEGER})
_MODEL = object_of(
    {
        "id": TEXT,
        "object": {"const": "model"},
        "created": INTEGER | {"description": "Unix seconds: when the model layer was built."},
        "owned_by": TEXT,
        "category": {"const": "embedding"},
        "supports": _SUPPORTS,
        "context_window": INTEGER | {"description": "Tokens of a text with its special ones."},
        "dimensions": INTEGER,
        "input_per_mtok": NUMBER | {"description": "USD per million tokens."},
        "output_per_mtok": NUMBER,
        "aliases": array_of(TEXT),
        "quantization": {"enum": ["int8", "fp16", "fp32"]},
        "weights": {"enum": ["real", "seeded"], "description": "seeded: the vectors mean nothing."},
        "revision": NAME,
    },
    alias_of=TEXT | {"description": "The canonical id, in the row of an alias."},
)
_PRICE = object_of(
    {
        "model": TEXT,
        "currency": {"const": "USD"},
        "effective_at": TIME,
        "input_per_mtok": NUMBER,
        "output_per_mtok": NUMBER,
        "cached_input_per_mtok": NULL,
        "unit_price_usd": NULL,
        "billing_unit": {"const": "tokens"},
        "resolution_tier": NULL,
        "quality_tier": NULL,
        "batch_input_per_mtok": NUMBER,
    }
)
_CARD = object_of(
    {
        "slug": TEXT,
        "model_name": TEXT | {"description": "The value for `model`."},
        "display_name": TEXT,
        "description": TEXT,
        "category": {"const": "embedding"},
        "context_window": INTEGER,
        "max_output": INTEGER,
        "input_per_mtok": NUMBER,
        "output_per_mtok": NUMBER,
        "supports": _SUPPORTS,
        "pricing": array_of({}),
        "health_status": {"enum": ["healthy", "unhealthy"]},
        "provider": TEXT,
    }
)
_GROUPED: dict[str, Schema] = {"project_id": NAME, "user_id": NULL, "api_key_id": NAME}  # null: not grouped by
_USAGE_RESULT = object_of(
    {
        "object": {"const": "organization.usage.embeddings.result"},
        "input_tokens": INTEGER,
        "num_model_requests": INTEGER,
        **_GROUPED,
        "model": NAME,
    }
)
_COSTS_RESULT = object_of(
    {
        "object": {"const": "organization.costs.result"},
        "amount": object_of({"value": NUMBER | {"description": "Exact."}, "currency": {"const": "usd"}}),
        "line_item": NAME,
        **_GROUPED,
        "api_source": {"enum": ["unlabeled", None]},
        "quantity": {"type": ["integer", "null"], "description": "Tokens, where the line item is told."},
        "quantity_unit": {"enum": ["tokens", None]},
    }
)
_SPENT: dict[str, Schema] = {"spend": NUMBER, "tokens": INTEGER, "requests": INTEGER}
_OF_A_MODEL: dict[str, Schema] = {"model": TEXT, "modality": {"const": "text"}, **_SPENT}
_OWN_USAGE = object_of(
    {
        "object": {"const": "usage"},
        "days": INTEGER,
        "currency": {"const": "USD"},
        **{f"total_{name}": kind for name, kind in _SPENT.items()},
        "models": array_of(object_of(_OF_A_MODEL | {"units_consumed": NULL, "billing_unit": {"const": "tokens"}})),
        "daily": array_of(
            object_of({"date": {"type": "string", "format": "date"}, **_SPENT}), "Days with usage alone."
        ),
    }
)
_ERROR = object_of({"error": object_of({"message": TEXT, "type": TEXT, "param": NAME, "code": NAME})})
