"""A table's stream, followed where there is no Lambda to do it: on one machine, for `make run`."""

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class Follower:
    """Hands a door what has happened to a table, from the stream's first record on, in order within each shard. What
    the door fails at it gets again, with all behind it, at the next `poll`."""

    def __init__(self, table: str, door: Callable[[dict[str, Any], Any], Any]) -> None:
        import boto3

        self._streams: Any = boto3.client("dynamodbstreams")
        self._stream = boto3.client("dynamodb").describe_table(TableName=table)["Table"]["LatestStreamArn"]
        self._door = door
        self._after: dict[str, str | None] = {}  # shard → the last sequence number that is done with

    def poll(self) -> int:
        """How many records the door has had."""
        shards = self._streams.describe_stream(StreamArn=self._stream)["StreamDescription"]["Shards"]
        return sum(self._shard(shard["ShardId"]) for shard in shards)

    def _shard(self, shard: str) -> int:
        after, place = self._after.get(shard), {"StreamArn": self._stream, "ShardId": shard}
        place |= (
            {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
            if after
            else {"ShardIteratorType": "TRIM_HORIZON"}
        )
        iterator = self._streams.get_shard_iterator(**place)["ShardIterator"]
        if not (records := self._streams.get_records(ShardIterator=iterator)["Records"]):
            return 0
        failures = self._door({"Records": records}, None)["batchItemFailures"]
        numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
        done = numbers.index(failures[0]["itemIdentifier"]) if failures else len(numbers)
        if done:
            self._after[shard] = numbers[done - 1]
        return len(numbers)
