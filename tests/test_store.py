"""AWS's clients."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.errorfactory import ClientExceptionsFactory

from handler import settings, store
from handler.billing.register import Register
from handler.settings import Settings
from tests.stack.ministack import Tables


def test_threads_that_come_together_know_each_others_errors(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore makes the classes of a client's errors when first asked for, without a lock: slowly here."""

    def slowly(client: Any) -> Any:
        time.sleep(0.05)
        return ClientExceptionsFactory().create_client_exceptions(client.meta.service_model)

    monkeypatch.setattr(BaseClient, "_load_exceptions", slowly)
    store._dynamodb.cache_clear()

    def add(_: int) -> None:
        Register(store.dynamodb, tables.rollups).add("acct_store")  # the condition fails for all but one

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))


@pytest.mark.parametrize(
    ("config", "calls"),
    [
        (Settings(aws_lambda_runtime_api="x", max_queue_requests=128, aws_lambda_max_concurrency=160), 160),
        (Settings(max_queue_requests=200), 200),
        (Settings(max_queue_requests=4), 64),
    ],
)
def test_each_of_the_calls_at_once_has_a_connection_that_is_kept(
    config: Settings, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "read", lambda: config)

    assert [vars(store._config(each))["max_pool_connections"] for each in (1.0, 20.0)] == [calls] * 2
