"""Token ids in place of text, through both doors of a deployment that was told nothing about them."""

import numpy as np
import openai
import tiktoken

from tests.doors.conftest import Server
from tests.doors.embedding import HEADER, MODEL, PLAIN_KEYS, post, vectors
from tests.stack.ministack import Tables


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
