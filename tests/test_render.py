import base64
import json

import numpy as np

from handler import render


def test_base64_is_the_little_endian_float32_bytes_of_each_row() -> None:
    vectors = np.random.default_rng(1).standard_normal((3, 1024), np.float32)
    answer = json.loads(render.embeddings(vectors, "base64", "m", 7))
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    for item, row in zip(answer["data"], vectors, strict=True):
        assert len(item["embedding"]) == 5464
        assert base64.b64decode(item["embedding"], validate=True) == row.astype("<f4").tobytes()


def test_float_has_the_shortest_digits_that_parse_back_to_the_same_float32() -> None:
    special = [0.1, 1 / 3, 1e-8, 1.17549435e-38, 1e-45, 3.4028235e38, -0.0, 0.0, 16777216.0, 1.0]
    vectors = np.array([special + list(np.random.default_rng(2).standard_normal(1014))], np.float32)
    raw = render.embeddings(vectors, "float", "m", 1)
    parsed = np.array(json.loads(raw)["data"][0]["embedding"], np.float64).astype(np.float32)
    assert parsed.tobytes() == vectors[0].tobytes()
    digits = raw.split(b"[", 2)[2].split(b"]")[0].split(b",")
    assert digits[0] == b"0.1"
    assert max(len(each.lstrip(b"-").replace(b".", b"").split(b"e")[0].strip(b"0")) for each in digits) <= 9


def test_an_answer_has_the_contracts_keys_and_no_others() -> None:
    answer = json.loads(render.embeddings(np.ones((1, 2), np.float32), "float", 'a "model"', 5))
    assert answer == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [1.0, 1.0]}],
        "model": 'a "model"',
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


def test_inputs_that_something_was_done_to_are_listed_behind_the_usage() -> None:
    one = np.ones((1, 2), np.float32)
    plain = render.embeddings(one, "float", "m", 5)
    assert render.embeddings(one, "float", "m", 5, truncated=(), averaged=()) == plain
    cut = json.loads(render.embeddings(one, "float", "m", 5, truncated=(0, 7, 12), averaged=()))
    assert cut.pop("truncated") == [0, 7, 12]
    assert cut == json.loads(plain)
    both = json.loads(render.embeddings(one, "base64", "m", 5, truncated=[1], averaged=[2]))
    assert list(both) == ["object", "data", "model", "usage", "truncated", "averaged"]
