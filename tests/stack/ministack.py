"""MiniStack for the tests, and the template's tables in it."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import boto3
from samtranslator.yaml_helper import yaml_parse

from handler import store
from handler.billing.keytable import KeyTable
from handler.contract.limits import NO_LIMITS, Limits
from tests.stack.process import Process, free_port


@dataclass(frozen=True)
class Tables:
    """Names of tables, and what the tests ask of them."""

    keys: str
    usage: str
    limits: str
    prices: str
    entries: str
    rollups: str
    jobs: str

    def create_key(self, account: str, role: str, limits: Limits = NO_LIMITS) -> str:
        return KeyTable(store.dynamodb, self.keys).create(account, role, "tests", limits)[0]

    def key_rows(self) -> list[dict[str, Any]]:
        """Every key."""
        return _rows(self.keys)

    def records(self) -> list[dict[str, Any]]:
        """Every usage record."""
        return _rows(self.usage)

    def remembered(self) -> list[dict[str, Any]]:
        """Every entry of an Idempotency-Key."""
        return _rows(self.entries)

    def counters(self) -> list[dict[str, Any]]:
        """What each key with limits has used."""
        return _rows(self.limits)


def _rows(table: str) -> list[dict[str, Any]]:
    pages = store.dynamodb().get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return [item for page in pages for item in page["Items"]]


class MiniStack:
    """Starts with the block and ends with it. `env`: what a process needs to take it for AWS."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self._folder = program, folder
        self._port = free_port()
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.env = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> "MiniStack":
        assert self._program.is_file(), f"{self._program} is missing: `make test` makes its environment"
        env = os.environ | {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(self._port), "TMPDIR": str(self._folder)}
        url = f"{self.endpoint}/_ministack/health"
        self._process = Process([str(self._program)], env, self._folder, self._folder / "log", url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stop()

    def create_tables(self, template: Path, prefix: str = "tests") -> Tables:
        resources = yaml_parse(template.read_text())["Resources"]
        names = {}
        for name, resource in resources.items():
            if resource["Type"] == "AWS::DynamoDB::Table":
                names[name] = f"{prefix}-{name}"
                properties = resource["Properties"]
                shape = {part: properties[part] for part in ("BillingMode", "AttributeDefinitions", "KeySchema")}
                if "StreamSpecification" in properties:
                    shape["StreamSpecification"] = properties["StreamSpecification"] | {"StreamEnabled": True}
                boto3.client("dynamodb").create_table(TableName=names[name], **shape)
        return Tables(
            keys=names["Keys"],
            usage=names["Usage"],
            limits=names["Limits"],
            entries=names["Entries"],
            prices=names["Prices"],
            rollups=names["Rollups"],
            jobs=names["Jobs"],
        )
