"""Batches that are planned, and what others change then: settings, functions, objects."""

import json
import logging
from dataclasses import replace

import boto3
import pytest

from handler.contract.batches import Batch
from handler.contract.models import Models
from tests.batches.works import MODEL, Works, line

HIDDEN = (
    json.dumps({"body": {"model": MODEL, "input": "word " * 100}, "custom_id": "hidden", "method": "POST"})[:-1]
    + f', "url": "/v1/embeddings", "more": "{"x" * 20_000}"}}\n'
).encode()  # a line of which neither head nor tail has the custom_id, where its middle is not held


def planned(works: Works, *lines: bytes) -> Batch:
    batch = works.submit([line("1"), *lines, line("3")])
    works.plans.deliver(works.planner)
    return batch


def test_a_line_that_is_too_long_by_now_is_its_own_error(works: Works) -> None:
    batch = planned(works, HIDDEN)
    works.deploy(replace(works.config, batch_max_line_bytes=300))
    works.until_quiet()
    done = works.ended(batch)
    assert {*done.output} == {"1", "3"}
    [told] = done.errors.values()
    assert (told["custom_id"], told["response"]["status_code"]) == (None, 413)


def test_a_batch_with_a_line_that_is_too_long_by_now_can_be_cancelled(works: Works) -> None:
    batch = planned(works, HIDDEN)
    works.deploy(replace(works.config, batch_max_line_bytes=300))
    works.desk.cancel(works.account, batch.id)
    works.until_quiet()
    assert {*works.ended(batch).errors} == {"1", None, "3"}


def test_a_line_that_was_too_long_and_is_no_request_is_its_own_error(works: Works) -> None:
    """Nobody had read it when the file was found good."""
    works.deploy(replace(works.config, batch_max_line_bytes=300))
    batch = planned(works, json.dumps({"custom_id": "2", "more": "x" * 1000}).encode() + b"\n")
    works.deploy(replace(works.config, batch_max_line_bytes=30_000))
    works.until_quiet()
    done = works.ended(batch)
    assert ({*done.output}, {*done.errors}) == ({"1", "3"}, {"2"})


COUNTS = {"completed": "2", "failed": "0", "tokens": "8", "output": "2", "errors": "0"}


@pytest.mark.parametrize(
    "told",
    [{}, COUNTS | {"tokens": "many"}, COUNTS, COUNTS | {"model": "m", "key_id": "k", "price": "none"}],
    ids=["nothing", "no number", "no price", "a price that is none"],
)
@pytest.mark.parametrize("cancelled", [False, True])
def test_where_another_hand_has_put_a_result_its_lines_have_failed_and_the_log_names_it(
    works: Works, bucket: str, caplog: pytest.LogCaptureFixture, told: dict[str, str], cancelled: bool
) -> None:
    batch = planned(works)
    key = f"work/{works.account}/{batch.id}/00000000"
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"{}", Metadata=told)
    if cancelled:
        works.desk.cancel(works.account, batch.id)
    with caplog.at_level(logging.ERROR):
        works.until_quiet()
    assert f"{key} is no result: shard 0 has failed" in caplog.messages
    assert works.ended(batch).batch.failed == 2
    assert works.billed() == (0, 0)


def test_a_batch_of_a_model_that_this_function_does_not_serve_waits_for_one_that_does(
    works: Works, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another image was deployed while it was under way, or one of the two functions alone."""
    batch = planned(works)
    right = works.service.models
    with monkeypatch.context() as other:
        other.setattr(works.service, "models", Models(replace(right.all[0], id="bge-m3", aliases=())))
        works.deploy(works.config)
        assert works.deliver() == 0
    assert f"batch {batch.id} is of {MODEL}; here is bge-m3" in caplog.text
    works.deploy(works.config)
    works.until_quiet()
    works.whole(batch, ["1", "3"])


def test_lines_by_an_alias_that_only_the_planning_function_knows_are_done(works: Works) -> None:
    """Of the two functions the one has been deployed before the other; or the alias has gone since."""
    works.deploy(replace(works.config, model_aliases=f"text-embedding-3-small={MODEL}"))
    batch = works.submit([line("1", model="text-embedding-3-small"), line("2")])
    works.until_quiet()
    done = works.whole(batch, ["1", "2"])
    assert {each["response"]["body"]["model"] for each in done.output.values()} == {MODEL}
