"""What is forgotten in its time: a file, and the name under which a batch was made."""

import time
import uuid
from datetime import UTC, datetime

import pytest

from handler import store
from handler.batches.bucket import Bucket
from handler.batches.files import Files
from handler.billing.work import Identity
from handler.contract.batches import Asked
from handler.contract.errors import ApiError
from handler.contract.files import LONGEST_S, Page, Upload
from tests.batches.works import Works, line

NAMED_S = 48 * 3600


def test_a_file_is_there_until_its_time_is_up_and_then_not(works: Works, bucket: str) -> None:
    short, long = (works.files.put(works.account, Upload("in.jsonl", s), line("1")) for s in (3600, LONGEST_S))

    def at(moment: float) -> Files:
        return Files(works.files.rows, Bucket(store.s3, bucket), lambda: moment)

    before, after = at(short.expires_at - 1), at(short.expires_at)
    assert before.find(works.account, short.id) == short
    assert before.list(works.account, Page(10, ascending=True)) == ([short, long], False)
    with pytest.raises(ApiError) as gone:
        after.find(works.account, short.id)
    assert gone.value.status == 404
    assert after.find(works.account, long.id) == long
    assert after.list(works.account, Page(10)) == ([long], False)


def test_a_name_is_its_batchs_for_two_days_and_then_free_for_any_other(works: Works) -> None:
    file = works.files.put(works.account, Upload("in.jsonl", LONGEST_S), line("1"))
    caller = works.service.payers.of_batch(works.account, works.key_hash, datetime.now(UTC)).caller
    name, start = uuid.uuid4().hex, int(time.time())

    def create(asked: str, after_s: int) -> tuple[str, bool]:
        works.clock = lambda: start + after_s
        identity = Identity("http", name, asked, NAMED_S)
        batch, new = works.desk.create(Asked(file.id, None, LONGEST_S), caller, works.key_hash, identity)
        return batch.id, new

    first, _ = create("one", 0)
    assert create("one", NAMED_S - 1) == (first, False)
    with pytest.raises(ApiError) as reused:
        create("another", NAMED_S - 1)
    assert reused.value.status == 400
    second, new = create("another", NAMED_S)
    assert new
    assert second != first
    assert create("another", NAMED_S + 1) == (second, False)
