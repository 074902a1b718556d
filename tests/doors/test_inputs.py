"""What may stand in a request's body, and what is said of anything else, through both doors."""

import base64
import json
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tiktoken

from tests.doors.conftest import Server
from tests.stack.ministack import Tables

MODEL = "all-minilm-l6-v2"
HEADER = "x-emblet-token-arrays"
PLAIN_KEYS = ["object", "data", "model", "usage"]


def post(server: Server, key: str, raw: bytes | None = None, /, **fields: Any) -> httpx.Response:
    content = json.dumps({"model": MODEL, "input": "the quick brown fox"} | fields).encode() if raw is None else raw
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/embeddings", content=content, headers=headers, timeout=60)


def vectors(answer: httpx.Response) -> list[bytes]:
    assert answer.status_code == 200, answer.text
    return [np.array(item["embedding"], np.float32).tobytes() for item in answer.json()["data"]]


# Token arrays


def test_ids_of_openais_clients_are_embedded_as_the_text_that_they_spell(
    server: Server, inference_key: str, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    """What LangChain sends by default: cl100k ids, and base64 asked for by the SDK."""
    texts = ["the quick brown fox", "Größe, 数字 and 🚀", "line\nbreak\t  </s> [SEP]", "<|endoftext|>"]
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=inference_key, max_retries=0)
    arrays = tiktoken_cl100k.encode_batch(texts, disallowed_special=())
    by_ids = client.embeddings.with_raw_response.create(model=MODEL, input=arrays)
    by_text = client.embeddings.with_raw_response.create(model=MODEL, input=texts)
    assert by_ids.headers[HEADER] == "cl100k"
    assert HEADER not in by_text.headers
    assert by_ids.parse() == by_text.parse()
    assert list(by_ids.http_response.json()) == PLAIN_KEYS


def test_one_array_of_ids_is_one_input(server: Server, inference_key: str, tiktoken_cl100k: tiktoken.Encoding) -> None:
    ids = tiktoken_cl100k.encode("the quick brown fox")
    assert post(server, inference_key, input=ids).json() == post(server, inference_key).json()
    named = post(server, inference_key, input=[*ids, 100257, 100276])
    assert vectors(named) == vectors(
        post(server, inference_key, input="the quick brown fox<|endoftext|><|endofprompt|>")
    )
    assert post(server, inference_key, input=[100257] * 2049, truncate=True).status_code == 200


def test_a_chunk_that_ends_inside_a_character_is_embedded_with_its_replacement(
    server: Server, inference_key: str, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    ids = tiktoken_cl100k.encode("fox \U00013000")[:-1]
    assert vectors(post(server, inference_key, input=ids)) == vectors(post(server, inference_key, input="fox \ufffd"))


def test_ids_that_are_too_many_for_the_model_alone_are_averaged_over_windows_and_listed(
    server: Server, inference_key: str, tables: Tables, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    words = ("cold water lies between two old hills " * 100).split()
    texts = ["short", " ".join(words), "the quick brown fox"]
    before = {record["sk"]["S"] for record in tables.records()}
    answer = post(server, inference_key, input=tiktoken_cl100k.encode_batch(texts))
    [record] = [record for record in tables.records() if record["sk"]["S"] not in before]
    body = answer.json()
    assert list(body) == [*PLAIN_KEYS, "averaged"]
    assert body["averaged"] == [1]
    assert body["usage"]["prompt_tokens"] == 1 + 700 + 4 == int(record["tokens"]["N"])
    assert answer.headers[HEADER] == "cl100k"

    windows = [" ".join(words[start : start + 254]) for start in range(0, 700, 254)]
    parts = [np.frombuffer(row, np.float32) for row in vectors(post(server, inference_key, input=windows))]
    mean = np.average(np.array(parts, np.float64), axis=0, weights=[254, 254, 192])
    found = vectors(answer)
    assert np.abs(np.frombuffer(found[1], np.float32) - mean / np.linalg.norm(mean)).max() < 1e-6
    assert [found[0], found[2]] == vectors(post(server, inference_key, input=[texts[0], texts[2]]))


def test_more_ids_than_openais_context_are_too_long_or_cut(
    server: Server, inference_key: str, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    ids = tiktoken_cl100k.encode("word" + " word" * 8192)
    refused = post(server, inference_key, input=[[1], ids])
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "however input[1] has 8193 tokens of text" in refused.json()["error"]["message"]
    cut = post(server, inference_key, input=[ids], truncate=True)
    assert vectors(cut) == vectors(post(server, inference_key, input="word " * 254))
    assert (cut.json()["truncated"], "averaged" in cut.json()) == ([0], False)


def test_300000_ids_a_request_are_counted_as_they_were_sent(
    server: Server, inference_key: str, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    """Of nothing but white space, so that the model has nothing to count."""
    [blank] = tiktoken_cl100k.encode(" ")
    fits = post(server, inference_key, input=[[blank] * 6000] * 50)
    assert (fits.status_code, fits.json()["usage"]["prompt_tokens"]) == (200, 0)
    many = post(server, inference_key, input=[[blank] * 6000] * 50 + [[blank]])
    assert many.json()["error"] == {
        "message": "Requested 300001 tokens, max 300000 tokens per request",
        "type": "max_tokens_per_request",
        "param": "input",
        "code": "max_tokens_per_request",
    }


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


@pytest.mark.parametrize(
    ("fields", "code", "param", "message"),
    [
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
    ],
    ids=lambda value: repr(value)[:40],
)
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
