import json
import random

import numpy as np
import pytest

from handler import render
from handler.contract import errors, payload


def escaped(vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]], form: str) -> int:
    """Bytes of the body inside the JSON of a function's result."""
    return len(json.dumps(render.embeddings(vectors, form, "m", 1).decode()))


@pytest.mark.parametrize("dimensions", [384, 1024])
@pytest.mark.parametrize("form", ["base64", "float"])
def test_what_is_planned_is_never_less_than_what_is_sent(form: str, dimensions: int) -> None:
    widest = np.full((2048, dimensions), -1.1754944e-38, np.float32)
    assert escaped(widest, form) <= 2048 * payload.planned(form, dimensions) + 8192
    vectors = np.random.default_rng(1).standard_normal((2048, dimensions), np.float32)
    assert escaped(vectors, form) <= 2048 * payload.planned(form, dimensions) + 8192


def test_the_plan_for_base64_is_close() -> None:
    vectors = np.zeros((2048, 1024), np.float32)
    assert 2048 * payload.planned("base64", 1024) <= escaped(vectors, "base64") * 1.001


@pytest.mark.parametrize(
    ("form", "dimensions", "fit"),
    [("base64", 1024, 1137), ("float", 1024, 359), ("base64", 384, 2048), ("float", 384, 953)],
)
def test_the_number_that_the_error_names_does_fit(form: str, dimensions: int, fit: int) -> None:
    payload.check(fit, form, dimensions, payload.LAMBDA_BYTES)
    if fit < 2048:
        with pytest.raises(errors.ApiError) as caught:
            payload.check(fit + 1, form, dimensions, payload.LAMBDA_BYTES)
        assert f"Send at most {fit} inputs" in caught.value.message
        assert ("base64" in caught.value.message) == (form == "float")
        assert caught.value.problem.code == "response_too_large"


FORMS = ("base64", "float")


def body_bytes(head: int, form: str, dimensions: int, listed: list[int]) -> int:
    """Of the largest answer that there can be to the head of a request."""
    widest = np.full((head, dimensions), -1.1754944e-38, np.float32)
    answer = render.embeddings(widest, form, "m" * 64, 300_000, truncated=[each for each in listed if each < head])
    return len(json.dumps(answer.decode()))


def test_the_head_that_the_error_names_fits_whatever_the_request_and_no_longer_one() -> None:
    chance = random.Random(11)
    refused = 0
    for _ in range(60):
        inputs, dimensions = chance.randrange(1, 2049), chance.choice([8, 64, 384])
        form, share = chance.choice(FORMS), chance.choice([0.0, 0.1, 1.0])
        listed = [index for index in range(inputs) if chance.random() < share]
        limit = chance.randrange(20_000, 2_000_000)
        try:
            payload.check(inputs, form, dimensions, limit, listed)
            fits = inputs
        except errors.ApiError as error:
            refused += 1
            fits = int(error.message.split("Send at most ")[1].split(" ")[0])
            assert fits < inputs
            longer = [each for each in listed if each <= fits]
            with pytest.raises(errors.ApiError):
                payload.check(fits + 1, form, dimensions, limit, longer)
        payload.check(fits, form, dimensions, limit, [each for each in listed if each < fits])
        assert body_bytes(fits, form, dimensions, listed) <= limit + 8192
    assert 10 < refused < 50


def test_indexes_that_the_answer_lists_are_counted() -> None:
    payload.check(1137, "base64", 1024, payload.LAMBDA_BYTES)
    with pytest.raises(errors.ApiError) as caught:
        payload.check(1137, "base64", 1024, payload.LAMBDA_BYTES, range(1137))
    assert "Send at most 1136 inputs." in caught.value.message


def test_without_a_limit_everything_fits() -> None:
    payload.check(2048, "float", 1024, None)
