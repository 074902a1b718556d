"""What settings and layers make of a request's inputs: token ids by TOKEN_ARRAYS, long ones by TRUNCATE."""

import base64
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
import tiktoken
from fastapi.testclient import TestClient

from handler.api.app import create_app
from handler.contract import payload
from handler.engine import manifest
from handler.engine.engine import Engine, NonFiniteVectorError
from handler.service import Service
from handler.settings import Settings
from tests.stack.ministack import Tables

Response = Any  # the test client's own
HEADER = "x-emblet-token-arrays"


Embed = Callable[..., Response]  # of the fields of a request


class Serve(Protocol):
    def __call__(self, layer: Path, room: int | None = None, /, **settings: str) -> Embed: ...


@pytest.fixture
def serve(tables: Tables, inference_key: str) -> Iterator[Serve]:
    """A service over a layer, with settings of its own, as a function that posts fields to it."""
    with ExitStack() as stack:

        def serving(layer: Path, room: int | None = None, /, **settings: str) -> Embed:
            config = Settings(model_dir=str(layer), keys_table=tables.keys, usage_table=tables.usage, **settings)  # type: ignore[arg-type]
            service = Service.open(config)
            service.load()
            headers = {"authorization": f"Bearer {inference_key}"}
            http = stack.enter_context(TestClient(create_app(service, room), headers=headers))
            model = service.models.all[0].id
            return lambda **fields: http.post("/v1/embeddings", json={"model": model} | fields)

        yield serving


def error(answer: Response) -> tuple[str, str, str]:
    assert answer.status_code == 400
    assert HEADER not in answer.headers
    found = answer.json()["error"]
    return found["code"], found["param"], found["message"]


def item(answer: Response, index: int = 0) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][index]["embedding"]


def without_cl100k(layer: Path, folder: Path) -> Path:
    """A copy of a layer as it is built with `--cl100k none`."""
    shutil.copytree(layer, folder)
    (folder / manifest.CL100K).unlink()
    facts = json.loads((folder / manifest.NAME).read_text())
    del facts["files"][manifest.CL100K]
    (folder / manifest.NAME).write_text(json.dumps(facts))
    return folder


# TOKEN_ARRAYS=model


def test_a_models_own_ids_are_embedded_as_their_text_with_the_special_tokens_or_without(
    serve: Serve, seeded: Path
) -> None:
    embed = serve(seeded, token_arrays="model")
    fox = [70, 63773, 119455, 6, 147797]
    text = embed(input="the quick brown fox")
    assert HEADER not in text.headers
    for ids in (fox, [0, *fox, 2], [0, *fox], [*fox, 2]):
        answer = embed(input=ids)
        assert answer.headers[HEADER] == "model"
        assert answer.json() == text.json()
        assert answer.json()["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    many = embed(input=[fox, [0, 2], fox[:1]])
    assert many.json()["usage"]["prompt_tokens"] == 6
    assert item(many, 1) == item(embed(input=""))


@pytest.mark.parametrize(
    ("ids", "token", "position"),
    [
        ([5, 250002], 250002, 1),
        ([-1], -1, 0),
        ([0, 0, 5, 2], 0, 1),
        ([5, 2, 2], 2, 1),
        ([7, 1, 7], 1, 1),
        ([0, 5, 250001, 2], 250001, 2),
    ],
)
def test_an_id_that_no_text_of_the_model_has_is_refused(
    serve: Serve, seeded: Path, ids: list[int], token: int, position: int
) -> None:
    assert error(serve(seeded, token_arrays="model")(input=[[5], ids])) == (
        "invalid_token_id",
        "input[1]",
        f"Invalid 'input[1]': token id {token} at position {position} is not in the text vocabulary of bge-m3-seeded.",
    )


def test_own_ids_that_are_too_long_are_refused_or_cut_never_averaged(serve: Serve, minilm: Path) -> None:
    embed = serve(minilm, token_arrays="model")
    assert item(embed(input=[101, *[1996] * 254, 102])) == item(embed(input="the " * 254))
    code, param, message = error(embed(input=[[1996], [101, *[1996] * 255]]))
    assert (code, param) == ("context_length_exceeded", "input[1]")
    assert "input[1] has 255 tokens of text" in message
    cut = embed(input=[[1996], [101, *[1996] * 255]], truncate=True).json()
    assert (cut["truncated"], cut["usage"]["prompt_tokens"]) == ([1], 255)


def test_a_deployment_that_refuses_empty_texts_refuses_special_tokens_around_nothing(
    serve: Serve, minilm: Path
) -> None:
    embed = serve(minilm, token_arrays="model", empty_input="reject")
    expected = ("empty_string", "input[1]", "Invalid 'input[1]': empty string.")
    assert error(embed(input=[[1996], [101, 102]])) == expected == error(embed(input=["the", ""]))


# TOKEN_ARRAYS=reject


def test_a_deployment_may_take_no_ids(serve: Serve, minilm: Path) -> None:
    embed = serve(minilm, token_arrays="reject")
    for ids in ([1], [[1], [2]]):
        code, param, message = error(embed(input=ids))
        assert (code, param) == ("token_arrays_not_supported", "input")
        assert message.endswith("In LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False).")
    assert embed(input=["text"]).status_code == 200


def test_a_layer_without_the_vocabulary_takes_no_ids_and_says_so_at_its_start(
    serve: Serve, minilm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    without = without_cl100k(minilm, tmp_path / "layer")
    with caplog.at_level(logging.WARNING):
        embed = serve(without)
    assert "all-minilm-l6-v2 was built without cl100k_base.tiktoken: token ids in a request get a 400" in caplog.text
    assert error(embed(input=[1]))[0] == "token_arrays_not_supported"
    caplog.clear()
    assert serve(without, token_arrays="model")(input=[1996]).headers[HEADER] == "model"
    serve(minilm)
    assert "was built without" not in caplog.text


# TRUNCATE


def test_the_setting_cuts_where_the_request_does_not_say(serve: Serve, minilm: Path) -> None:
    embed = serve(minilm, truncate="true")
    long = "word " * 300
    cut = embed(input=["short", long]).json()
    assert (cut["truncated"], cut["usage"]["prompt_tokens"]) == ([1], 255)
    assert embed(input=["short", long], truncate=None).json() == cut
    assert embed(input=["short", long], truncate=True).json() == cut
    assert error(embed(input=["short", long], truncate=False))[:2] == ("context_length_exceeded", "input[1]")
    assert "truncated" not in embed(input=["short"]).json()


def test_ids_are_cut_by_the_setting_too_and_averaged_where_a_request_says_no(
    serve: Serve, minilm: Path, tiktoken_cl100k: tiktoken.Encoding
) -> None:
    """What is averaged loses nothing, so `truncate: false` has nothing to refuse."""
    embed = serve(minilm, truncate="true")
    ids = tiktoken_cl100k.encode("word " * 300)
    assert embed(input=ids).json() == embed(input="word " * 300).json()
    whole = embed(input=ids, truncate=False).json()
    assert (whole["averaged"], whole["usage"]["prompt_tokens"], "truncated" in whole) == ([0], 300, False)


# What the answer names counts towards its size


def test_the_number_of_inputs_that_is_said_to_fit_fits(serve: Serve, minilm: Path) -> None:
    """Every one of them is cut, in a room that ends where the list of them begins."""
    texts = ["word " * 255] * 40
    room = 40 * payload.planned("base64", 384)
    embed = serve(minilm, room)
    assert embed(input=["word"] * 40, encoding_format="base64").status_code == 200
    code, _, message = error(embed(input=texts, encoding_format="base64", truncate=True))
    assert code == "response_too_large"
    assert "Send at most 39 inputs." in message
    assert embed(input=texts[:39], encoding_format="base64", truncate=True).json()["truncated"] == list(range(39))


def test_a_non_finite_vector_of_a_window_is_its_inputs(
    serve: Serve, minilm: Path, tiktoken_cl100k: tiktoken.Encoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = serve(minilm)

    def broken(self: Engine, ids: Any, deadline: Any = None, gone: Any = None) -> Any:
        raise NonFiniteVectorError(len(ids) - 1)

    monkeypatch.setattr(Engine, "encode", broken)
    answer = embed(input=tiktoken_cl100k.encode_batch(["short", "word " * 600]))
    assert (answer.status_code, answer.json()["error"]["param"]) == (500, "input[1]")


# Counting


@pytest.mark.parametrize("layer", ["minilm", "seeded"])
def test_what_is_limited_is_what_is_billed_and_what_the_usage_says(
    layer: str, request: pytest.FixtureRequest, serve: Serve, tables: Tables
) -> None:
    """The pieces of the text, without the special tokens; an empty text has none."""
    folder: Path = request.getfixturevalue(layer)
    embed = serve(folder)
    fox = {"minilm": 4, "seeded": 5}[layer]
    content = manifest.load(folder).content_tokens
    for text, tokens in (("the quick brown fox", fox), ("", 0), ("a\0b", None), ("word " * content, content)):
        before = {record["sk"]["S"] for record in tables.records()}
        answer = embed(input=text, encoding_format="base64").json()
        [record] = [record for record in tables.records() if record["sk"]["S"] not in before]
        billed = int(record["tokens"]["N"])
        assert answer["usage"] == {"prompt_tokens": billed, "total_tokens": billed}
        assert tokens in (None, billed)
        vector = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4")
        assert abs(np.linalg.norm(vector) - 1) < 1e-5
    assert error(embed(input="word " * (content + 1)))[2] == (
        f"This model's maximum context length is {content + 2} tokens ({content} of text, 2 special tokens), however "
        f'input[0] has {content + 1} tokens of text. Shorten or split it, or send "truncate": true.'
    )
