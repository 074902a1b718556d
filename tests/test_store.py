"""AWS's clients."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.errorfactory import ClientExceptionsFactory

from handler import store
from handler.billing.register import Register
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
