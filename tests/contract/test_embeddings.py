from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from handler.contract import embeddings, errors
from handler.contract.embeddings import EmbeddingRequest
from handler.contract.models import Model, Models

MODEL = Model(
    id="bge-m3",
    aliases=("BAAI/bge-m3", "text-embedding-bge-m3"),
    created=1763800000,
    owned_by="BAAI",
    dimensions=1024,
    context=8192,
    content_tokens=8190,
    outputs=("dense", "token_states"),
    quantization="int8",
    weights="real",
    revision=None,
    description="Multilingual embeddings, 1024 dimensions, 8K context.",
    input_per_mtok=Decimal("0.01"),
    batch_input_per_mtok=Decimal("0.005"),
    priced_since=datetime(2026, 11, 1, tzinfo=UTC),
)
MODELS = Models(MODEL)


def check(reject_empty: bool = False, **values: Any) -> EmbeddingRequest:
    return embeddings.check({"model": "bge-m3", "input": "text"} | values, MODELS, reject_empty=reject_empty)


def test_one_text_is_a_request() -> None:
    assert check() == EmbeddingRequest(MODEL, ("text",), "float")


def test_a_list_of_one_and_of_many_texts_keeps_its_order() -> None:
    assert check(input=["one"]).texts == ("one",)
    assert check(input=["b", "a", "b"]).texts == ("b", "a", "b")


def test_null_means_omitted_and_unknown_fields_are_ignored() -> None:
    fields = ("encoding_format", "dimensions", "user", "truncate", "embedding_types", "output_dtype")
    nulls: dict[str, Any] = dict.fromkeys((*fields, "multi_vector_dtype"))
    assert check(**nulls, input_type="query", task="x") == check()


def test_what_changes_nothing_is_accepted() -> None:
    assert check(dimensions=1024, user="u", truncate=False, embedding_types=["dense"], output_dtype="float") == check()


@pytest.mark.parametrize("name", MODEL.names)
def test_the_model_is_found_by_its_id_and_every_alias(name: str) -> None:
    assert check(model=name).model is MODEL


def test_an_empty_text_is_a_text_unless_the_setting_refuses_it() -> None:
    assert check(input=["a", ""]).texts == ("a", "")
    with pytest.raises(errors.ApiError) as caught:
        check(reject_empty=True, input=["a", ""])
    assert (caught.value.problem.code, caught.value.param) == ("empty_string", "input[1]")


@pytest.mark.parametrize(
    ("values", "status", "code", "param", "message"),
    [
        ({"model": None}, 400, "missing_required_parameter", "model", "Missing required parameter: 'model'."),
        ({"model": 3}, 400, "invalid_type", "model", "expected a string, but got an integer"),
        ({"model": "BGE-M3"}, 404, "model_not_found", "model", "The model 'BGE-M3' does not exist"),
        ({"model": "x" * 100}, 404, "model_not_found", "model", "'" + "x" * 64 + "…'"),
        ({"input": None}, 400, "missing_required_parameter", "input", "Missing required parameter: 'input'."),
        ({"input": 5}, 400, "invalid_type", "input", "expected a string or an array, but got an integer"),
        ({"input": {}}, 400, "invalid_type", "input", "got an object"),
        ({"input": True}, 400, "invalid_type", "input", "got a boolean"),
        ({"input": []}, 400, "empty_array", "input", "Invalid 'input': empty array."),
        ({"input": [[]]}, 400, "empty_array", "input[0]", "Invalid 'input[0]': empty array."),
        ({"input": ["a", 5]}, 400, "invalid_type", "input[1]", "expected a string, but got an integer"),
        ({"input": ["a", None]}, 400, "invalid_type", "input[1]", "got null"),
        ({"input": ["a", ["b"]]}, 400, "invalid_type", "input[1]", "got an array"),
        ({"input": [True]}, 400, "invalid_type", "input[0]", "got a boolean"),
        ({"input": [1.5]}, 400, "invalid_type", "input[0]", "got a number"),
        ({"input": [[1.5]]}, 400, "invalid_type", "input[0]", "got an array"),
        ({"input": ["a"] * 2049}, 400, "array_above_max_length", "input", "at most 2048 inputs, but got 2049"),
        ({"input": [1, 2]}, 400, "token_arrays_not_supported", "input", "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, 400, "token_arrays_not_supported", "input", "text, not token ids"),
        ({"encoding_format": "hex"}, 400, "invalid_value", "encoding_format", "'float', 'base64'"),
        ({"encoding_format": 1}, 400, "invalid_type", "encoding_format", "got an integer"),
        ({"dimensions": 256}, 400, "invalid_value", "dimensions", "does not support specifying dimensions"),
        ({"dimensions": 0}, 400, "invalid_value", "dimensions", "does not support specifying dimensions"),
        ({"dimensions": "1024"}, 400, "invalid_type", "dimensions", "expected an integer, but got a string"),
        ({"dimensions": 1024.0}, 400, "invalid_type", "dimensions", "expected an integer, but got a number"),
        ({"dimensions": True}, 400, "invalid_type", "dimensions", "expected an integer, but got a boolean"),
        ({"user": 7}, 400, "invalid_type", "user", "got an integer"),
        ({"truncate": True}, 400, "unsupported_value", "truncate", "leave 'truncate' out"),
        ({"truncate": "true"}, 400, "invalid_type", "truncate", "expected a boolean"),
        ({"embedding_types": []}, 400, "empty_array", "embedding_types", "empty array"),
        ({"embedding_types": "dense"}, 400, "invalid_type", "embedding_types", "expected an array"),
        ({"embedding_types": ["dense", 1]}, 400, "invalid_type", "embedding_types[1]", "got an integer"),
        (
            {"embedding_types": ["dense", "sparse"]},
            400,
            "unsupported_value",
            "embedding_types",
            "has no 'sparse' output",
        ),
        ({"output_dtype": "int8"}, 400, "invalid_value", "output_dtype", "Supported values are: 'float'"),
        ({"multi_vector_dtype": "int8"}, 400, "invalid_value", "multi_vector_dtype", "'float16', 'float32'"),
    ],
    ids=str,
)
def test_a_wrong_field_gets_its_own_error(
    values: dict[str, Any], status: int, code: str, param: str, message: str
) -> None:
    with pytest.raises(errors.ApiError) as caught:
        check(**values)
    error = caught.value
    assert (error.status, error.problem.code, error.param) == (status, code, param)
    assert message in error.message


def test_the_model_is_judged_before_the_other_fields_and_those_in_their_order() -> None:
    with pytest.raises(errors.ApiError) as first:
        check(model="nope", input=[])
    with pytest.raises(errors.ApiError) as second:
        check(input=[], encoding_format="hex", dimensions=3)
    assert (first.value.param, second.value.param) == ("model", "input")


def test_a_model_row_has_the_contracts_fields_and_aliases_that_pickers_find_get_rows() -> None:
    rows = list(MODEL.rows())
    assert [row["id"] for row in rows] == ["bge-m3", "text-embedding-bge-m3"]
    assert rows[1] == rows[0] | {"id": "text-embedding-bge-m3", "alias_of": "bge-m3"}
    assert rows[0] == {
        "id": "bge-m3",
        "object": "model",
        "created": 1763800000,
        "owned_by": "BAAI",
        "category": "embedding",
        "supports": ["embeddings"],
        "context_window": 8192,
        "dimensions": 1024,
        "input_per_mtok": 0.01,
        "output_per_mtok": 0,
        "aliases": ["BAAI/bge-m3", "text-embedding-bge-m3"],
        "quantization": "int8",
        "weights": "real",
        "revision": None,
    }
