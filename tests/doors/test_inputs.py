"""What may stand in a request's body, and what is said of anything else, through both doors."""

import base64
from typing import Any

import pytest

from tests.doors.conftest import Server
from tests.doors.embedding import HEADER, MODEL, PLAIN_KEYS, post, vectors
from tests.stack.ministack import Tables

# Truncation


def test_a_text_is_cut_only_where_that_is_asked_for_and_the_answer_says_which(
    server: Server, inference_key: str, tables: Tables
) -> None:
    texts = ["word " * 300, "short", "word " * 254, "other " * 255]
    refused = post(server, inference_key, input=texts)
    assert refused.json()["error"] == {
        "message": "This model's maximum context length is 256 tokens (254 of text, 2 special tokens), however "
        'input[0] has 300 tokens of text. Shorten or split it, or send "truncate": true.',
        "type": "invalid_request_error",
        "param": "input[0]",
        "code": "context_length_exceeded",
    }
    assert post(server, inference_key, input=texts, truncate=False).json() == refused.json()
    before = {record["sk"]["S"] for record in tables.records()}
    cut = post(server, inference_key, input=texts, truncate=True)
    [record] = [record for record in tables.records() if record["sk"]["S"] not in before]
    assert list(cut.json()) == [*PLAIN_KEYS, "truncated"]
    assert cut.json()["truncated"] == [0, 3]
    assert cut.json()["usage"]["total_tokens"] == 254 + 1 + 254 + 254 == int(record["tokens"]["N"])
    heads = ["word " * 254, "short", "word " * 254, "other " * 254]
    assert vectors(cut) == vectors(post(server, inference_key, input=heads))
    assert list(post(server, inference_key, input="short", truncate=True).json()) == PLAIN_KEYS


# Refusals, to the letter


REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({"input": None}, "missing_required_parameter", "input", "Missing required parameter: 'input'."),
    (
        {"input": []},
        "empty_array",
        "input",
        "Invalid 'input': empty array. Expected an array with minimum length 1.",
    ),
    (
        {"input": [[]]},
        "empty_array",
        "input[0]",
        "Invalid 'input[0]': empty array. Expected an array with minimum length 1.",
    ),
    (
        {"input": {"text": "a"}},
        "invalid_type",
        "input",
        "Invalid type for 'input': expected a string or an array, but got an object instead.",
    ),
    (
        {"input": ["a", "b", "c", 4]},
        "invalid_type",
        "input[3]",
        "Invalid type for 'input[3]': expected a string, but got an integer instead.",
    ),
    (
        {"input": [[1], [1], [1], [1, 1, 1, 1, 1, 1, 1, True]]},
        "invalid_type",
        "input[3][7]",
        "Invalid type for 'input[3][7]': expected an integer, but got a boolean instead.",
    ),
    (
        {"input": [1, 2.0]},
        "invalid_type",
        "input[1]",
        "Invalid type for 'input[1]': expected an integer, but got a number instead.",
    ),
    (
        {"input": ["a"] * 2049},
        "array_above_max_length",
        "input",
        "Invalid 'input': array too long. Expected at most 2048 inputs, but got 2049.",
    ),
    (
        {"input": [[1]] * 2049},
        "array_above_max_length",
        "input",
        "Invalid 'input': array too long. Expected at most 2048 inputs, but got 2049.",
    ),
    (
        {"input": [[1], [7, 100256]]},
        "invalid_token_id",
        "input[1]",
        "Invalid 'input[1]': token id 100256 at position 1 is not in cl100k_base.",
    ),
    (
        {"input": [-1]},
        "invalid_token_id",
        "input[0]",
        "Invalid 'input[0]': token id -1 at position 0 is not in cl100k_base.",
    ),
    (
        {"input": [10**100]},
        "invalid_token_id",
        "input[0]",
        f"Invalid 'input[0]': token id 1{'0' * 63}… at position 0 is not in cl100k_base.",
    ),
    (
        {"encoding_format": "hex"},
        "invalid_value",
        "encoding_format",
        "Invalid value: 'hex'. Supported values are: 'float', 'base64'.",
    ),
    ({"dimensions": 256}, "invalid_value", "dimensions", "This model does not support specifying dimensions."),
    (
        {"truncate": "true"},
        "invalid_type",
        "truncate",
        "Invalid type for 'truncate': expected a boolean, but got a string instead.",
    ),
    (
        {"embedding_types": ["dense", "multi_vector"]},
        "unsupported_value",
        "embedding_types",
        f"Model '{MODEL}' has no 'multi_vector' output. It has: 'dense'.",
    ),
    (
        {"output_dtype": "ubinary"},
        "unsupported_value",
        "output_dtype",
        f"Model '{MODEL}' gives no 'ubinary' numbers. It gives: 'float'.",
    ),
]


@pytest.mark.parametrize(("fields", "code", "param", "message"), REFUSED, ids=lambda value: repr(value)[:40])
def test_a_refusal_says_what_is_wrong_and_where(
    server: Server, inference_key: str, fields: dict[str, Any], code: str, param: str, message: str
) -> None:
    answer = post(server, inference_key, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    assert HEADER not in answer.headers


def test_the_fields_of_the_contract_that_change_nothing_are_taken(server: Server, inference_key: str) -> None:
    same = post(
        server,
        inference_key,
        encoding_format="float",
        dimensions=384,
        user="someone",
        truncate=False,
        embedding_types=["dense"],
        output_dtype="float",
        multi_vector_dtype="float32",
        input_type="query",
    )
    names = ("encoding_format", "dimensions", "user", "truncate", "embedding_types", "output_dtype")
    nulls = post(server, inference_key, **dict.fromkeys((*names, "multi_vector_dtype")))
    assert same.json() == nulls.json() == post(server, inference_key).json()


# Text


def test_any_text_is_a_text(server: Server, inference_key: str) -> None:
    """As it comes in JSON: NUL, half of a surrogate pair, an escaped pair, control pieces by name, a repeated key."""
    raw = rb'{"model":"%b","input":"x","input":["a\u0000b","\ud83d","\ud83d\ude00","</s> [SEP] <mask>",""]}'
    answer = post(server, inference_key, raw % MODEL.encode())
    assert vectors(answer) == vectors(
        post(server, inference_key, input=["a\0b", "\ufffd", "😀", "</s> [SEP] <mask>", ""])
    )
    assert post(server, inference_key, input="").json()["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


def test_base64_is_the_same_bits(server: Server, inference_key: str) -> None:
    packed = post(server, inference_key, input=[[1, 2], [3]], encoding_format="base64").json()["data"]
    floats = vectors(post(server, inference_key, input=[[1, 2], [3]]))
    assert [base64.b64decode(item["embedding"]) for item in packed] == floats
