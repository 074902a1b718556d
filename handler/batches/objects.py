"""Objects that become batches: `in/ACCOUNT/….jsonl` of the results bucket, by S3's notifications."""

import hashlib
import json
import logging
import re
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote_plus

from handler.batches.jobs import Jobs
from handler.batches.queue import PLAN, Steps
from handler.batches.rows import new_id
from handler.contract import errors
from handler.contract.batches import WINDOW_S, Batch
from handler.contract.files import LONGEST_S

log = logging.getLogger(__name__)

_KEY = re.compile(r"in/([A-Za-z0-9_.-]{1,64})/(.*[^/])?\.jsonl")
_SHOWN = 512  # characters of a value in a batch's metadata


class Objects:
    """Makes batches of what is put into `bucket`."""

    def __init__(self, jobs: Jobs, steps: Steps, bucket: str) -> None:
        self._jobs, self._steps, self._bucket = jobs, steps, bucket

    def take(self, text: str) -> None:
        """A message of S3's: a batch for each object that it tells of, made once however often it comes. Raises
        ValueError for what is none, and StoreUnavailableError."""
        try:
            event = json.loads(text)
            if event.get("Event") == "s3:TestEvent":  # which S3 sends when notifications are set up
                return
            batches = [made for record in event["Records"] if (made := self._batch(record))]
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError("this is no notification of S3's") from error
        for batch in batches:
            if self._jobs.create(batch).status == "validating":
                self._steps.send(batch, PLAN)

    def _batch(self, record: dict[str, Any]) -> Batch | None:
        """The batch of an object, or None where it is to be none. Its id is the put's own: of the same object put again
        there is another."""
        bucket, put = record["s3"]["bucket"]["name"], record["s3"]["object"]
        key = unquote_plus(put["key"])
        found = _KEY.fullmatch(key)
        if bucket != self._bucket or found is None:
            shown = quote(errors.without_keys(key))
            log.warning("an object outside in/ACCOUNT/*.jsonl makes no batch: %s", shown)
            return None
        came = datetime.fromisoformat(record["eventTime"]).timestamp()
        identity = f"{bucket}\n{key}\n{put.get('versionId') or put['sequencer']}"
        source = f"s3://{bucket}/{key}"
        return Batch(
            id=new_id("batch_", came, hashlib.sha256(identity.encode()).hexdigest()[:20]),
            account=found[1],
            input_file_id=source,
            input_key=key,
            etag=f'"{put["eTag"]}"',  # of what was put: it may have been replaced before it is read
            created_at=int(came),
            expires_at=int(came) + WINDOW_S,
            output_lasts_s=LONGEST_S,
            metadata={"source": source[:_SHOWN]},
        )
