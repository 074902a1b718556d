"""A results bucket that says nothing holds up the files alone."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import HOUSE
from tests.stack.ministack import MiniStack, Tables
from tests.stack.outage import Fault, Outage
from tests.stack.server import PlainServer

UPLOADS = 8  # as many as are done at once


@pytest.fixture
def outage(ministack: MiniStack) -> Iterator[Outage]:
    with Outage(ministack.endpoint) as between:
        yield between


def test_usage_is_told_while_uploads_wait_for_the_bucket(
    jobs_env: dict[str, str], outage: Outage, tables: Tables, account: str, tmp_path: Path
) -> None:
    key = tables.create_key(account, "inference")
    admin = {"authorization": f"Bearer {tables.create_key(account, 'admin')}"}
    env = jobs_env | {"AWS_ENDPOINT_URL_S3": outage.url}
    with PlainServer(env, HOUSE, tmp_path / "log") as server, ThreadPoolExecutor(UPLOADS) as clients:

        def upload(number: int) -> int:
            file, headers = {"file": (f"{number}.jsonl", b"{}")}, {"authorization": f"Bearer {key}"}
            form = {"purpose": "batch"}
            return httpx.post(f"{server.url}/v1/files", data=form, files=file, headers=headers, timeout=60).status_code

        outage.begin(Fault("S3", 1000))
        uploads = [clients.submit(upload, number) for number in range(UPLOADS)]
        deadline = time.monotonic() + 20
        while outage.left["S3"] > 1000 - UPLOADS and time.monotonic() < deadline:
            time.sleep(0.02)
        assert outage.left["S3"] == 1000 - UPLOADS
        told = httpx.get(f"{server.url}/v1/usage", headers=admin, timeout=60)
        assert told.status_code == 200
        assert not any(upload.done() for upload in uploads)
        outage.over()
        assert [upload.result() for upload in uploads] == [200] * UPLOADS
