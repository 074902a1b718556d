"""Batches from their file to their files: what each line gets, what is billed, and how they end."""

import base64
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from handler.batches import plan
from handler.contract.errors import ApiError
from handler.contract.limits import Limits
from tests.batches.works import MODEL, Works, line
from tests.stack.ministack import Tables

TEXTS = [f"{'a lake of cold water lies between the hills ' * (n % 5)}{n}" for n in range(60)]


def test_every_line_gets_the_vector_that_the_http_door_gives_and_is_billed_once(works: Works) -> None:
    batch = works.submit(line(f"c-{n}", text) for n, text in enumerate(TEXTS))
    assert batch.status == "validating"
    done = works.end(batch)
    assert done.batch.status == "completed"
    assert (done.batch.shards or 0) > 5
    assert (done.batch.total, done.batch.completed, done.batch.failed) == (60, 60, 0)
    assert list(done.output) == [f"c-{n}" for n in range(60)]
    assert done.errors == {}
    assert done.batch.error_file_id is None
    engine = works.service.bulk._engine
    alone = engine.encode(engine.tokens.encode(TEXTS))
    for n, vector in enumerate(alone):
        body = done.output[f"c-{n}"]["response"]["body"]
        assert base64.b64decode(body["data"][0]["embedding"]) == np.ascontiguousarray(vector, "<f4").tobytes()
        assert body["model"] == MODEL
    assert works.billed() == (done.tokens, 60)
    assert done.batch.tokens == done.tokens
    records = works.records()
    assert len(records) == done.batch.shards
    assert {record["door"]["S"] for record in records} == {"batch"}
    assert {Decimal(record["usd_per_mtok"]["N"]) for record in records} == {Decimal("0.005")}
    assert {record["model"]["S"] for record in records} == {MODEL}


def test_a_finished_batch_is_told_to_the_letter(works: Works) -> None:
    done = works.end(works.submit([line("1"), line("2", [])])).batch
    told = done.wire()
    times = {name: told.pop(name) for name in list(told) if name.endswith("_at")}
    assert told == {
        "id": done.id,
        "object": "batch",
        "endpoint": "/v1/embeddings",
        "model": MODEL,
        "errors": None,
        "input_file_id": done.input_file_id,
        "completion_window": "24h",
        "status": "completed",
        "output_file_id": done.output_file_id,
        "error_file_id": done.error_file_id,
        "request_counts": {"total": 2, "completed": 1, "failed": 1},
        "usage": {
            "input_tokens": 4,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 4,
        },
        "metadata": None,
    }
    assert times["created_at"] <= times["in_progress_at"] <= times["finalizing_at"] <= times["completed_at"]
    assert times["expires_at"] == times["created_at"] + 86400
    assert times["failed_at"] is times["expired_at"] is times["cancelling_at"] is times["cancelled_at"] is None
    assert (done.output_file_id, done.error_file_id) != (None, None)
    output = works.files.find(works.account, str(done.output_file_id))
    assert (output.filename, output.purpose) == (f"{done.id}_output.jsonl", "batch_output")
    errors = works.files.find(works.account, str(done.error_file_id))
    assert errors.filename == f"{done.id}_error.jsonl"


BAD: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "empty": ({"text": []}, 400, "empty_array", "input"),
    "long": ({"text": "word " * 300}, 400, "context_length_exceeded", "input[0]"),
    "format": ({"encoding_format": "hex"}, 400, "invalid_value", "encoding_format"),
    "width": ({"dimensions": 7}, 400, "invalid_value", "dimensions"),
    "ids": ({"text": [[1, -1]]}, 400, "invalid_token_id", "input[0]"),
}


def test_a_bad_body_is_its_own_lines_error_and_no_others(works: Works) -> None:
    lines = [line("first")]
    for name, (body, *_) in BAD.items():
        lines += [line(name, **body), line(f"after {name}")]
    done = works.end(works.submit(lines))
    assert (done.batch.status, done.batch.completed, done.batch.failed) == ("completed", 6, 5)
    assert list(done.errors) == list(BAD)
    for name, (_, status, code, param) in BAD.items():
        response = done.errors[name]["response"]
        error = response["body"]["error"]
        assert (response["status_code"], error["code"], error["param"]) == (status, code, param)
        assert done.errors[name]["error"] is None
    assert works.billed() == (done.tokens, 6)


def test_a_batch_all_of_whose_lines_fail_is_completed_without_output(works: Works) -> None:
    done = works.end(works.submit([line("1", []), line("2", [])]))
    assert (done.batch.status, done.batch.output_file_id, done.batch.failed) == ("completed", None, 2)
    assert works.records() == []


def test_a_line_of_ten_megabytes_is_refused_for_itself(works: Works) -> None:
    done = works.end(works.submit([line("1"), line("large", "x" * 10_000_000), line("3")]))
    assert list(done.output) == ["1", "3"]
    error = done.errors["large"]["response"]
    assert (error["status_code"], error["body"]["error"]["code"]) == (413, "request_too_large")
    assert works.billed() == (done.tokens, 2)


def test_a_file_as_windows_writes_it_loses_nothing(works: Works) -> None:
    done = works.end(works.submit([b"\xef\xbb\xbf", *(line(str(n)).replace(b"\n", b"\r\n\r\n") for n in range(20))]))
    assert list(done.output) == [str(n) for n in range(20)]


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([], "empty_file", None),
        ([line("1"), b"nonsense\n"], "invalid_json_line", 2),
        ([line("1", "\xff").replace(b"\\u00ff", b"\xff")], "invalid_json_line", 1),
        ([line("1"), line("2", model="other")], "model_mismatch", 2),
        ([*(line(str(n)) for n in range(30)), line("3")], "duplicate_custom_id", 31),
        ([line("1").replace(b"embeddings", b"completions")], "url_mismatch", 1),
    ],
)
def test_a_bad_file_fails_before_anything_is_billed(
    works: Works, lines: list[bytes], code: str, number: int | None
) -> None:
    done = works.end(works.submit(lines)).batch
    assert done.status == "failed"
    assert done.wire()["failed_at"] is not None
    told = done.wire()["errors"]
    assert told["object"] == "list"
    assert [(each["code"], each["line"]) for each in told["data"]] == [(code, number)]
    assert works.records() == []
    assert not [each for each in works.jobs.open() if each.id == done.id]


# Cancelling and expiring


def test_what_is_done_when_a_batch_is_cancelled_is_kept_and_billed(works: Works) -> None:
    batch = works.submit(line(str(n)) for n in range(60))
    works.deliver()
    assert 0 < works.jobs.get(works.account, batch.id).done < (works.jobs.get(works.account, batch.id).shards or 0)
    assert works.desk.cancel(works.account, batch.id).status == "cancelling"
    assert works.desk.cancel(works.account, batch.id).status == "cancelling"
    done = works.end(batch)
    assert done.batch.status == "cancelled"
    assert done.batch.wire()["cancelled_at"] is not None
    assert 0 < len(done.output) < 60
    assert {*done.output} | {*done.errors} == {str(n) for n in range(60)}
    assert {each["error"]["code"] for each in done.errors.values()} == {"batch_cancelled"}
    assert {each["response"] for each in done.errors.values()} == {None}
    assert (done.batch.completed, done.batch.failed) == (len(done.output), len(done.errors))
    assert works.billed() == (done.tokens, len(done.output))
    assert works.desk.cancel(works.account, batch.id).status == "cancelled"


def test_a_batch_that_is_not_planned_yet_is_cancelled_at_once(works: Works) -> None:
    batch = works.submit([line("1")])
    works.desk.cancel(works.account, batch.id)
    done = works.end(batch)
    assert (done.batch.status, done.batch.total, works.records()) == ("cancelled", 0, [])


def test_a_completed_batch_cannot_be_cancelled(works: Works) -> None:
    done = works.end(works.submit([line("1")])).batch
    with pytest.raises(ApiError) as refused:
        works.desk.cancel(works.account, done.id)
    assert (refused.value.status, refused.value.problem.code) == (400, "batch_not_cancellable")
    assert refused.value.message == "Cannot cancel a batch with status 'completed'."


def test_a_batch_of_lines_that_are_all_too_long_has_no_model(works: Works) -> None:
    works.deploy(replace(works.config, batch_max_line_bytes=300))
    done = works.end(works.submit([line("1", "x" * 999)]))
    assert (done.batch.status, done.batch.wire()["model"], done.batch.failed) == ("completed", None, 1)


# Limits


def test_a_minutes_limits_do_not_bind_a_batch_and_are_not_used_by_it(
    works: Works, account: str, tables: Tables, config: object
) -> None:
    key = tables.create_key(account, "inference", Limits(requests_per_minute=1, tokens_per_minute=5))
    from handler.billing.keytext import digest

    works.key_hash = digest(key)
    done = works.end(works.submit(line(str(n)) for n in range(20)))
    assert len(done.output) == 20


def test_a_quota_is_used_to_its_last_line_and_the_others_are_told(works: Works, account: str, tables: Tables) -> None:
    from handler.billing.keytext import digest

    works.key_hash = digest(tables.create_key(account, "inference", Limits(tokens_per_month=30)))
    done = works.end(works.submit(line(str(n)) for n in range(20)))
    assert done.batch.status == "completed"
    assert len(done.output) == 7  # of four tokens each
    assert works.billed() == (28, 7)
    for each in done.errors.values():
        response = each["response"]
        assert (response["status_code"], response["body"]["error"]["code"]) == (429, "insufficient_quota")


def test_a_small_batch_does_not_wait_for_a_huge_one(works: Works) -> None:
    huge = works.submit(line(str(n)) for n in range(200))
    works.plans.deliver(works.planner)
    assert len(works.shards.messages()) == 3, "no more of a batch are out at once"
    small = works.submit([line("1")])
    works.plans.deliver(works.planner)
    works.shards.deliver(works.executor)
    works.plans.deliver(works.planner)
    assert works.jobs.get(works.account, small.id).status == "completed"
    assert works.jobs.get(works.account, huge.id).status == "in_progress"
    assert len(works.end(huge).output) == 200


def test_a_file_that_is_deleted_while_it_is_checked_fails(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, real = works.submit([line("1")]), plan.read
    file = batch.account, batch.input_file_id

    def read(*given: Any) -> plan.Plan:
        found = real(*given)
        works.files.delete(*file)
        return found

    monkeypatch.setattr(plan, "read", read)
    assert [fault.code for fault in works.end(batch).batch.faults] == ["file_not_found"]


def test_a_file_that_is_deleted_meanwhile_ends_its_batch_all_the_same(works: Works) -> None:
    batch = works.submit(line(str(n)) for n in range(60))
    works.deliver()
    works.files.delete(works.account, batch.input_file_id)
    done = works.end(batch)
    assert done.batch.status == "completed"
    assert done.batch.completed == len(done.output)
    assert done.batch.completed + done.batch.failed == 60
    assert works.billed() == (done.tokens, len(done.output))
    [fault] = done.batch.wire()["errors"]["data"]
    assert (fault["code"], fault["line"]) == ("file_not_found", None)
    words = f"{done.batch.failed} lines have failed without an error of their own: their file"
    assert fault["message"].startswith(words)
