"""A message of SQS that asks for embeddings: who pays, what is asked for, and where its answer goes."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handler.contract import body, errors, fields
from handler.contract.errors import ApiError

_ACCOUNT = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PREFIX = 1024 - 37  # bytes: of an object's key (S3, "Naming objects"), less the name of an answer
_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,62})/((?:.*/)?)")
_NAMES = {"key_id": 0, "id": 1, "custom_id": 0}  # and how many characters each has at least
_LONGEST = 256  # characters of any of them


class UnreadableError(Exception):
    """Nobody can be told: it names no account, or no place for an answer. The message says why, and nothing of its
    own words."""


@dataclass(frozen=True)
class Place:
    """Where an answer goes: below a prefix of a bucket, or to a queue."""

    bucket: str = ""
    prefix: str = ""
    queue: str = ""


@dataclass(frozen=True)
class Message:
    """`id`: its sender's own, by which it is known again, else None; `fault`: why nothing else can be answered."""

    account: str
    place: Place
    key_id: str | None
    id: str | None
    custom_id: str | None
    body: Mapping[str, Any]
    fault: ApiError | None = None

    @property
    def asked(self) -> str:
        """SHA-256, in hex, of what is asked for."""
        text = json.dumps(self.body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read(text: str, bucket: str, destinations: str) -> Message:
    """A message. `bucket`: where answers go that are sent nowhere else; `destinations`: places that may be named,
    separated by commas. Raises UnreadableError."""
    try:
        values = body.read(text.encode("utf-8", "surrogatepass"))
    except ApiError:
        raise UnreadableError("it is not the JSON of an object") from None
    account = values.get("account")
    if not isinstance(account, str) or not _ACCOUNT.fullmatch(account):
        raise UnreadableError("it names no account")
    place = _place(values.get("to"), destinations) or Place(bucket, f"out/{account}/messages/")
    words = {name: _word(values.get(name), least) for name, least in _NAMES.items()}
    asked = values.get("body")
    return Message(account, place, **words, body=asked if isinstance(asked, dict) else {}, fault=_fault(values, words))


def _word(value: Any, least: int) -> str | None:
    return value if isinstance(value, str) and least <= len(value) <= _LONGEST else None


def _fault(values: Mapping[str, Any], words: Mapping[str, Any]) -> ApiError | None:
    for name, least in _NAMES.items():
        if values.get(name) is not None and words[name] is None:
            return fields.wrong_type(name, f"a string of {least} to {_LONGEST} characters", values[name])
    asked = values.get("body")
    if asked is None:
        return errors.MISSING_PARAMETER.error(param="body", field="body")
    return None if isinstance(asked, dict) else fields.wrong_type("body", "an object", asked)


def _place(to: Any, destinations: str) -> Place | None:
    """What `to` names; None where it names nothing. Raises UnreadableError."""
    if to is None:
        return None
    allowed = [each.strip() for each in destinations.split(",") if each.strip()]
    match to:
        case {"queue": str(url)} if url in allowed:
            return Place(queue=url)
        case {"s3": str(where)} if (found := _S3.fullmatch(where)) and any(
            where.startswith(each) for each in allowed if each.startswith("s3://") and each.endswith("/")
        ):
            if len(found[2].encode()) > _PREFIX or {".", ".."} & {*found[2].split("/")}:
                raise UnreadableError("it is to be answered below a prefix that no object of S3 can have")
            return Place(found[1], found[2])
    raise UnreadableError("it is to be answered at no place of RESULT_DESTINATIONS")
