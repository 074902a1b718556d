"""The passes of batches in this process, on MiniStack: what their queues hold is handed to them, as Lambda does it."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3

from handler import store
from handler.batches.bucket import Bucket
from handler.batches.desk import Desk
from handler.batches.files import Files
from handler.batches.jobs import Jobs
from handler.batches.queue import Steps
from handler.batches.rows import Rows
from handler.billing.ledger import Ledger
from handler.contract.batches import FINAL, Asked, Batch
from handler.contract.files import LONGEST_S, Upload
from handler.events import passes
from handler.events.shards import Pointers
from handler.service import Service
from handler.settings import Settings
from tests.stack.ministack import Tables
from tests.stack.queues import Queue

MODEL = "all-minilm-l6-v2"


def line(custom_id: str, text: Any = "the quick brown fox", **body: Any) -> bytes:
    asked = {"model": MODEL, "input": text, "encoding_format": "base64"} | body
    return (
        json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": asked}).encode() + b"\n"
    )


def configured(layer: Path, tables: Tables, bucket: str, **more: Any) -> Settings:
    """The settings of a function that takes files and batches."""
    return Settings(
        model_dir=str(layer),
        keys_table=tables.keys,
        usage_table=tables.usage,
        limits_table=tables.limits,
        prices_table=tables.prices,
        entries_table=tables.entries,
        jobs_table=tables.jobs,
        results_bucket=bucket,
        **more,
    )


class KilledError(BaseException):
    """The function ends here, and nothing of it is left."""


@dataclass
class Ended:
    """A batch that has ended, and the lines of its files by their custom_id."""

    batch: Batch
    output: dict[str, Any]
    errors: dict[str, Any]

    @property
    def tokens(self) -> int:
        return sum(line["response"]["body"]["usage"]["prompt_tokens"] for line in self.output.values())


@dataclass
class Works:
    """Both functions, and their queues."""

    config: Settings
    service: Service
    account: str
    key_hash: str
    plans: Queue = field(default_factory=Queue)
    shards: Queue = field(default_factory=Queue)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.config = replace(self.config, plans_queue=self.plans.url, shards_queue=self.shards.url)
        self.rows = Rows(store.dynamodb, self.config.jobs_table)
        self.jobs = Jobs(self.rows, lambda: self.clock())
        self.files = Files(self.rows, Bucket(store.s3, self.config.results_bucket))
        self.desk = Desk(self.jobs, self.files, Steps(store.queues, self.plans.url), lambda: self.clock())
        self.deploy(self.config)

    def deploy(self, config: Settings) -> None:
        """Both functions with other settings; what waits in their queues stays."""
        self.config = config
        ledger = Ledger(store.ledger, config.usage_table, config.entries_table)
        self.planner = Pointers(passes.plans(config, ledger, self.jobs))
        self.executor = Pointers(passes.shards(config, self.service, self.jobs))

    def submit(self, lines: Iterable[bytes]) -> Batch:
        file = self.files.put(self.account, Upload("in.jsonl", LONGEST_S), b"".join(lines))
        caller = self.service.payers.of_batch(self.account, self.key_hash, datetime.now(UTC)).caller
        return self.desk.create(Asked(file.id, None, LONGEST_S), caller, self.key_hash, None)[0]

    def received(self, times: int) -> list[dict[str, Any]]:
        """The shards' messages of what is planned now, as each is when it comes for that time."""
        self.plans.deliver(self.planner)
        found = self.shards.messages()
        for message in found:
            message["attributes"]["ApproximateReceiveCount"] = str(times)
        return found

    def deliver(self) -> int:
        """Give what is in the queues to who takes it; how many messages were done with."""
        return _deliver(self.plans, self.planner) + _deliver(self.shards, self.executor)

    def until_quiet(self) -> None:
        while self.deliver():
            pass

    def end(self, batch: Batch) -> Ended:
        self.until_quiet()
        return self.ended(batch)

    def ended(self, batch: Batch) -> Ended:
        found = self.jobs.get(batch.account, batch.id)
        assert found.status in FINAL, found
        return Ended(found, self.lines(found, found.output_file_id), self.lines(found, found.error_file_id))

    def whole(self, batch: Batch, names: Iterable[str]) -> Ended:
        """A batch that is completed with these lines in its output, each once, and billed as they say, to the token."""
        done, expected = self.ended(batch), {*names}
        assert done.batch.status == "completed"
        assert {*done.output} == expected
        assert self.billed() == (done.tokens, len(expected))
        assert (done.batch.completed, done.batch.tokens) == (len(expected), done.tokens)
        return done

    def lines(self, batch: Batch, file_id: str | None) -> dict[str, Any]:
        if file_id is None:
            return {}
        file = self.files.find(batch.account, file_id)
        body = b"".join(self.files.read(file))
        assert len(body) == file.bytes
        found = [json.loads(each) for each in body.splitlines()]
        by_name = {each["custom_id"]: each for each in found}
        assert len(by_name) == len(found), "a custom_id is there twice"
        return by_name

    def records(self) -> list[dict[str, Any]]:
        """The account's records in the ledger."""
        pages = boto3.client("dynamodb").get_paginator("scan").paginate(TableName=self.config.usage_table)
        return [item for page in pages for item in page["Items"] if str(item["pk"]["S"]).startswith(f"{self.account}#")]

    def billed(self) -> tuple[int, int]:
        """Tokens and requests in the ledger."""
        found = self.records()
        return sum(int(each["tokens"]["N"]) for each in found), sum(int(each["requests"]["N"]) for each in found)


def _deliver(queue: Queue, door: Pointers) -> int:
    """Each message in an event of its own, as both mappings have them."""
    done = 0
    for message in queue.messages():
        if not door({"Records": [message]}, None)["batchItemFailures"]:
            queue.delete(message)
            done += 1
    return done


def survive(works: Works, most: int = 200) -> None:
    """Deliver until nothing is left; of a call that ends the function nothing is acknowledged."""
    for _ in range(most):
        try:
            done = works.deliver()
        except KilledError:
            continue
        if not done and not works.plans.messages() and not works.shards.messages():
            return
    raise AssertionError("it does not come to an end")
