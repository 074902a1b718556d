"""Entries: what a caller's own name for its work stands for, so that a repetition is answered and not billed.

An entry is put in one transaction with the record whose key it fixes. Time runs so:

    made ---- lifetime ----> expires ------ _KEPT_S ------> ttl
    a repetition meets it    new work replaces it           DynamoDB deletes it, some days late

Every condition tests `expires` by the time that the work came in, not by the time of writing: a record that has waited
in the ledger queue meets the entries of its own time, which is why they are kept for so long after it.
"""

from enum import Enum, auto

from handler.billing.records import Item, Record

HTTP_S, MESSAGE_S = 48 * 3600, 45 * 86400  # a message's: source queue, dead-letter queue and redrive
_KEPT_S = 30 * 86400  # the ledger queue and its dead-letter queue hold a record for 14 days, the log for 30 by default


class Seen(Enum):
    """What an entry that is there says of a record's work."""

    ITSELF = auto()  # the entry is that record's own
    BEFORE = auto()  # the same has been asked for under this name
    OTHERWISE = auto()  # something else has
    LATER = auto()  # the name was used anew after this work had been forgotten


CONDITION = "attribute_not_exists(id) OR expires <= :now"


def item(record: Record) -> Item:
    """The entry of a record whose work has an identity."""
    identity, key = record.work.identity, record.key()
    assert identity is not None  # noqa: S101  (no other is put with an entry)
    expires = made(record) + identity.lifetime
    return {
        "id": {"S": f"{record.account}#{identity.kind}#{identity.id}"},
        "asked": {"S": identity.asked},
        "record_pk": key["pk"],
        "record_sk": key["sk"],
        "expires": {"N": str(expires)},
        "ttl": {"N": str(expires + _KEPT_S)},
    }


def made(record: Record) -> int:
    """Unix seconds of an entry's beginning, the condition's `:now`."""
    return int(record.work.time.timestamp())


def refuses(record: Record, old: Item) -> bool:
    """Whether an entry, of any age, keeps a record's work from being done under its name."""
    return int(old["expires"]["N"]) > made(record) and seen(record, old) in (Seen.OTHERWISE, Seen.LATER)


def seen(record: Record, old: Item) -> Seen:
    """What the entry in a record's way says."""
    identity, key = record.work.identity, record.key()
    assert identity is not None  # noqa: S101  (it has put an entry)
    if (old["record_pk"], old["record_sk"]) == (key["pk"], key["sk"]):
        return Seen.ITSELF
    if int(old["expires"]["N"]) - identity.lifetime >= made(record) + identity.lifetime:
        return Seen.LATER
    return Seen.BEFORE if old["asked"]["S"] == identity.asked else Seen.OTHERWISE
