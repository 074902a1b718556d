import json
import timeit
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from handler.contract import body, embeddings, errors
from handler.contract.embeddings import EmbeddingRequest, Rules
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


RULES = Rules()


def check(rules: Rules = RULES, **values: Any) -> EmbeddingRequest:
    return embeddings.check({"model": "bge-m3", "input": "text"} | values, MODELS, rules)


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


def test_an_array_of_ids_is_one_input_and_an_array_of_arrays_one_each() -> None:
    one, many = check(input=[5, 6, 0]), check(input=[[5, 6], [0]])
    assert (one.texts, one.arrays, one.inputs) == ((), ([5, 6, 0],), 1)
    assert (many.texts, many.arrays, many.inputs) == ((), ([5, 6], [0]), 2)
    assert check(input=["a", "b"]).inputs == 2


def test_one_array_of_ids_may_be_of_any_length_and_2048_arrays_are_taken() -> None:
    assert check(input=[7] * 100_000).inputs == 1
    assert check(input=[[7]] * 2048).inputs == check(input=["a"] * 2048).inputs == 2048


def test_the_request_says_whether_to_truncate_and_else_the_setting() -> None:
    always = Rules(truncate=True)
    assert [check(truncate=asked).truncate for asked in (None, False, True)] == [False, False, True]
    assert [check(always, truncate=asked).truncate for asked in (None, False, True)] == [True, False, True]


@pytest.mark.parametrize("name", MODEL.names)
def test_the_model_is_found_by_its_id_and_every_alias(name: str) -> None:
    assert check(model=name).model is MODEL


def test_an_empty_text_is_a_text_unless_the_setting_refuses_it() -> None:
    assert check(input=["a", ""]).texts == ("a", "")
    with pytest.raises(errors.ApiError) as caught:
        check(Rules(reject_empty=True), input=["a", ""])
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
        ({"input": [[], "a"]}, 400, "empty_array", "input[0]", "Expected an array with minimum length 1."),
        ({"input": [[1], [2], []]}, 400, "empty_array", "input[2]", "Invalid 'input[2]': empty array."),
        ({"input": ["a", 5]}, 400, "invalid_type", "input[1]", "expected a string, but got an integer"),
        ({"input": ["a", None, 5]}, 400, "invalid_type", "input[1]", "expected a string, but got null instead."),
        ({"input": ["a", ["b"]]}, 400, "invalid_type", "input[1]", "expected a string, but got an array"),
        ({"input": ["a", {}]}, 400, "invalid_type", "input[1]", "expected a string, but got an object"),
        ({"input": [True]}, 400, "invalid_type", "input[0]", "a string, an integer or an array, but got a boolean"),
        ({"input": [1.0]}, 400, "invalid_type", "input[0]", "a string, an integer or an array, but got a number"),
        ({"input": [None]}, 400, "invalid_type", "input[0]", "a string, an integer or an array, but got null"),
        ({"input": [{}]}, 400, "invalid_type", "input[0]", "a string, an integer or an array, but got an object"),
        ({"input": [1, 2, 3, "a"]}, 400, "invalid_type", "input[3]", "'input[3]': expected an integer, but got a stri"),
        ({"input": [1, True]}, 400, "invalid_type", "input[1]", "expected an integer, but got a boolean instead."),
        ({"input": [1, 2.0]}, 400, "invalid_type", "input[1]", "expected an integer, but got a number instead."),
        ({"input": [1, [2]]}, 400, "invalid_type", "input[1]", "expected an integer, but got an array instead."),
        ({"input": [[1], "a"]}, 400, "invalid_type", "input[1]", "expected an array, but got a string instead."),
        ({"input": [[1], 2]}, 400, "invalid_type", "input[1]", "expected an array, but got an integer instead."),
        ({"input": [["a"]]}, 400, "invalid_type", "input[0][0]", "expected an integer, but got a string instead."),
        ({"input": [[True]]}, 400, "invalid_type", "input[0][0]", "expected an integer, but got a boolean instead."),
        ({"input": [[1.0]]}, 400, "invalid_type", "input[0][0]", "expected an integer, but got a number instead."),
        ({"input": [[[1]]]}, 400, "invalid_type", "input[0][0]", "expected an integer, but got an array instead."),
        ({"input": [[1]] * 3 + [[1] * 7 + [None]]}, 400, "invalid_type", "input[3][7]", "'input[3][7]': expected an"),
        ({"input": [[1, "a"], "b"]}, 400, "invalid_type", "input[0][1]", "got a string"),
        ({"input": ["a"] * 2049}, 400, "array_above_max_length", "input", "at most 2048 inputs, but got 2049."),
        ({"input": [[1]] * 2049}, 400, "array_above_max_length", "input", "array too long. Expected at most 2048"),
        ({"input": ["a"] * 2049 + [5]}, 400, "invalid_type", "input[2049]", "got an integer"),
        ({"encoding_format": "hex"}, 400, "invalid_value", "encoding_format", "'float', 'base64'"),
        ({"encoding_format": 1}, 400, "invalid_type", "encoding_format", "got an integer"),
        ({"dimensions": 256}, 400, "invalid_value", "dimensions", "does not support specifying dimensions"),
        ({"dimensions": 0}, 400, "invalid_value", "dimensions", "does not support specifying dimensions"),
        ({"dimensions": "1024"}, 400, "invalid_type", "dimensions", "expected an integer, but got a string"),
        ({"dimensions": 1024.0}, 400, "invalid_type", "dimensions", "expected an integer, but got a number"),
        ({"dimensions": True}, 400, "invalid_type", "dimensions", "expected an integer, but got a boolean"),
        ({"user": 7}, 400, "invalid_type", "user", "got an integer"),
        ({"truncate": 1}, 400, "invalid_type", "truncate", "expected a boolean, but got an integer instead."),
        ({"truncate": "true"}, 400, "invalid_type", "truncate", "expected a boolean"),
        ({"embedding_types": []}, 400, "empty_array", "embedding_types", "empty array"),
        ({"embedding_types": "dense"}, 400, "invalid_type", "embedding_types", "expected an array"),
        ({"embedding_types": ["dense", 1]}, 400, "invalid_type", "embedding_types[1]", "got an integer"),
        (
            {"embedding_types": ["sparse", "colbert"]},
            400,
            "invalid_value",
            "embedding_types",
            "Invalid value: 'colbert'. Supported values are: 'dense', 'sparse', 'multi_vector'.",
        ),
        (
            {"embedding_types": ["dense", "sparse"]},
            400,
            "unsupported_value",
            "embedding_types",
            "Model 'bge-m3' has no 'sparse' output. It has: 'dense'.",
        ),
        (
            {"output_dtype": "int4"},
            400,
            "invalid_value",
            "output_dtype",
            "Invalid value: 'int4'. Supported values are: 'float', 'int8', 'uint8', 'binary', 'ubinary'.",
        ),
        ({"output_dtype": 8}, 400, "invalid_type", "output_dtype", "expected a string, but got an integer"),
        (
            {"output_dtype": "int8"},
            400,
            "unsupported_value",
            "output_dtype",
            "Model 'bge-m3' gives no 'int8' numbers. It gives: 'float'.",
        ),
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


def test_token_arrays_are_refused_where_the_deployment_takes_none() -> None:
    for sent in ([1, 2], [[1, 2], [3]]):
        with pytest.raises(errors.ApiError) as caught:
            check(Rules(token_arrays=False), input=sent)
        error = caught.value
        assert (error.status, error.problem.code, error.param) == (400, "token_arrays_not_supported", "input")
        assert error.message == (
            "This service takes text, not token ids. In LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)."
        )
    assert check(Rules(token_arrays=False), input=["a"]).inputs == 1


def test_the_first_wrong_field_is_named_in_the_order_of_the_contract() -> None:
    wrong: dict[str, Any] = {
        "model": "nope",
        "input": [],
        "encoding_format": "hex",
        "dimensions": 3,
        "user": 7,
        "truncate": "yes",
        "embedding_types": ["sparse"],
        "output_dtype": "int8",
        "multi_vector_dtype": "int8",
    }
    for field in tuple(wrong):
        with pytest.raises(errors.ApiError) as caught:
            check(**wrong)
        assert caught.value.param == field
        del wrong[field]
    assert check(**wrong) == check()


def test_300000_ids_are_checked_in_a_fraction_of_the_time_that_reading_them_takes() -> None:
    arrays = [[number % 100_000 for number in range(150)] for _ in range(2000)]
    raw = json.dumps({"model": "bge-m3", "input": arrays}).encode()
    values = body.read(raw)
    reading = min(timeit.repeat(lambda: json.loads(raw), number=1, repeat=5))
    checking = min(timeit.repeat(lambda: embeddings.check(values, MODELS, RULES), number=1, repeat=5))
    strictly = min(timeit.repeat(lambda: body.read(raw), number=1, repeat=5))
    assert checking < reading
    assert strictly < 3 * reading  # a call for each id would make it four times


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
