"""`POST /v1/embeddings`: the request, checked field by field."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handler.contract import errors, fields, inputs
from handler.contract.inputs import Texts, TokenArrays
from handler.contract.models import Model, Models

MAX_TOKENS = 300_000  # of one request
FORMATS = ("float", "base64")
TYPES = ("dense", "sparse", "multi_vector")
DTYPES = ("float", "int8", "uint8", "binary", "ubinary")
WIDTHS = ("float16", "float32")

SERVED_TYPES = ("dense",)
SERVED_DTYPES = ("float",)


@dataclass(frozen=True)
class Rules:
    """What the settings of a deployment decide about every request."""

    reject_empty: bool = False  # `""` is a 400
    token_arrays: bool = True  # ids are taken, whatever they mean
    truncate: bool = False  # what holds where the request does not say


@dataclass(frozen=True)
class EmbeddingRequest:
    """`texts`, or `arrays` of token ids: 1 to 2,048 of one of the two; `encoding_format`: one of FORMATS."""

    model: Model
    texts: Texts
    encoding_format: str
    arrays: TokenArrays = ()
    truncate: bool = False

    @property
    def inputs(self) -> int:
        """How many vectors are asked for."""
        return len(self.texts) or len(self.arrays)


def check(values: Mapping[str, Any], models: Models, rules: Rules) -> EmbeddingRequest:
    """A request out of a body's object; null means omitted, unknown fields are ignored.

    Raises the first failure: `model` before all else, then the other fields in the order below.
    """
    name = fields.given(values, "model", str)
    if name is None:
        raise errors.MISSING_PARAMETER.error(param="model", field="model")
    model = models.find(name)
    texts, arrays = inputs.check(values.get("input"), reject_empty=rules.reject_empty, token_arrays=rules.token_arrays)
    encoding_format = fields.choice(values, "encoding_format", FORMATS) or "float"
    dimensions = fields.given(values, "dimensions", int)
    if dimensions not in (None, model.dimensions):
        raise errors.DIMENSIONS.error(param="dimensions")
    fields.given(values, "user", str)
    truncate = fields.given(values, "truncate", bool)
    _check_types(values, model)
    dtype = fields.choice(values, "output_dtype", DTYPES)
    if dtype is not None and dtype not in SERVED_DTYPES:
        served = fields.quoted(SERVED_DTYPES)
        raise errors.NO_SUCH_DTYPE.error(param="output_dtype", model=model.id, name=dtype, dtypes=served)
    fields.choice(values, "multi_vector_dtype", WIDTHS)
    return EmbeddingRequest(model, texts, encoding_format, arrays, rules.truncate if truncate is None else truncate)


def _check_types(values: Mapping[str, Any], model: Model) -> None:
    names = fields.given(values, "embedding_types", list)
    if names is None:
        return
    if not names:
        raise errors.EMPTY_ARRAY.error(param="embedding_types", field="embedding_types")
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise fields.wrong_type(f"embedding_types[{index}]", fields.KINDS[str], name)
        if name not in TYPES:
            raise errors.INVALID_VALUE.error(param="embedding_types", value=name, values=fields.quoted(TYPES))
    for name in names:
        if name not in SERVED_TYPES:
            outputs = fields.quoted(SERVED_TYPES)
            raise errors.NO_SUCH_OUTPUT.error(param="embedding_types", model=model.id, name=name, outputs=outputs)
