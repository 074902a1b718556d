"""`POST /v1/embeddings`: the request, checked field by field."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handler.contract import errors
from handler.contract.models import Model, Models

MAX_INPUTS = 2048
MAX_TOKENS = 300_000  # of one request
FORMATS = ("float", "base64")

_KINDS = {str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "an array", dict: "an object"}


@dataclass(frozen=True)
class EmbeddingRequest:
    """`texts`: 1 to 2,048; `encoding_format`: one of FORMATS."""

    model: Model
    texts: tuple[str, ...]
    encoding_format: str


def check(values: Mapping[str, Any], models: Models, *, reject_empty: bool) -> EmbeddingRequest:
    """A request out of a body's object; null means omitted, unknown fields are ignored.

    Raises the first failure: `model` before all else, then the other fields in the order below.
    """
    name = _given(values, "model", str)
    if name is None:
        raise errors.MISSING_PARAMETER.error(param="model", field="model")
    model = models.find(name)
    texts = _texts(values.get("input"), reject_empty=reject_empty)
    encoding_format = _choice(values, "encoding_format", FORMATS) or "float"
    dimensions = _given(values, "dimensions", int)
    if dimensions not in (None, model.dimensions):
        raise errors.DIMENSIONS.error(param="dimensions")
    _given(values, "user", str)
    if _given(values, "truncate", bool):
        raise errors.NO_TRUNCATION.error(param="truncate")
    _dense_only(values, model)
    _choice(values, "output_dtype", ("float",))
    _choice(values, "multi_vector_dtype", ("float16", "float32"))
    return EmbeddingRequest(model, texts, encoding_format)


def _texts(value: Any, *, reject_empty: bool) -> tuple[str, ...]:
    if value is None:
        raise errors.MISSING_PARAMETER.error(param="input", field="input")
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        raise _wrong_type("input", "a string or an array", value)
    if not texts:
        raise errors.EMPTY_ARRAY.error(param="input", field="input")
    _refuse_token_arrays(texts)
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise _wrong_type(f"input[{index}]", "a string", text)
    if len(texts) > MAX_INPUTS:
        raise errors.TOO_MANY_INPUTS.error(param="input", most=MAX_INPUTS, n=len(texts))
    if reject_empty and "" in texts:
        index = texts.index("")
        raise errors.EMPTY_STRING.error(param=f"input[{index}]", i=index)
    return tuple(texts)


def _refuse_token_arrays(items: list[Any]) -> None:
    """400 if the first item says that ids are meant: taken as the model's own they would give wrong vectors."""
    first = items[0]
    if first == []:
        raise errors.EMPTY_ARRAY.error(param="input[0]", field="input[0]")
    inner = first[0] if isinstance(first, list) else first
    if isinstance(inner, int) and not isinstance(inner, bool):
        raise errors.TOKEN_ARRAYS.error(param="input")


def _dense_only(values: Mapping[str, Any], model: Model) -> None:
    names = _given(values, "embedding_types", list)
    if names is None:
        return
    if not names:
        raise errors.EMPTY_ARRAY.error(param="embedding_types", field="embedding_types")
    for index, name in enumerate(names):
        if not isinstance(name, str):
            raise _wrong_type(f"embedding_types[{index}]", "a string", name)
        if name != "dense":
            raise errors.NO_SUCH_OUTPUT.error(param="embedding_types", model=model.id, name=name, outputs="'dense'")


def _given(values: Mapping[str, Any], field: str, kind: type) -> Any:
    """The field's value if it is there and of this JSON kind, None if it is absent or null; `true` is no integer."""
    value = values.get(field)
    if value is not None and type(value) is not kind:
        raise _wrong_type(field, _KINDS[kind], value)
    return value


def _choice(values: Mapping[str, Any], field: str, choices: tuple[str, ...]) -> str | None:
    value = _given(values, field, str)
    if value is not None and value not in choices:
        raise errors.INVALID_VALUE.error(param=field, value=value, values=", ".join(f"'{each}'" for each in choices))
    return value if value is None else str(value)


def _wrong_type(field: str, expected: str, value: Any) -> errors.ApiError:
    got = "null" if value is None else _KINDS[type(value)]
    return errors.INVALID_TYPE.error(param=field, field=field, expected=expected, got=got)
