"""The ledger queue's messages: records that DynamoDB did not take while their callers waited, written now."""

import logging
from typing import Any

from handler.billing import records
from handler.billing.ledger import Ledger
from handler.billing.limits import Counters
from handler.billing.register import Register
from handler.store import StoreUnavailableError

log = logging.getLogger(__name__)


class Drain:
    """A door for events of SQS whose mapping has ReportBatchItemFailures. Calling it answers which messages have to
    come again; the others' records are in the ledger."""

    def __init__(self, ledger: Ledger, counters: Counters, register: Register) -> None:
        self._ledger, self._counters, self._register = ledger, counters, register

    def __call__(self, event: dict[str, Any], context: Any) -> dict[str, list[dict[str, str]]]:  # noqa: ARG002
        failed = [message["messageId"] for message in event["Records"] if not self._write(message)]
        return {"batchItemFailures": [{"itemIdentifier": each} for each in failed]}

    def _write(self, message: dict[str, Any]) -> bool:
        """Whether the message is done with. One that holds no record comes until it is in the dead-letter queue, which
        raises an alarm: nothing is thrown away here. One whose record is written and not counted comes again, and is
        counted then, whether it was or not."""
        try:
            record = records.loads(message["body"])
            outcome = self._ledger.settle(record)
            self._register.late(record.account, record.work.time.timestamp())
            self._counters.late(record)
        except (StoreUnavailableError, ValueError) as error:
            log.error("message %s of the ledger queue stays: %s", message["messageId"], error)
            return False
        except Exception:  # whatever is wrong with one is no other's
            log.exception("message %s of the ledger queue stays", message["messageId"])
            return False
        log.info("message %s of the ledger queue: %s", message["messageId"], outcome.name.lower())
        return True
