"""The text of a key: random, with a checksum of its own, and never stored."""

import hashlib
import secrets
import string
import zlib

_PREFIX, _RANDOM, _CHECK = "sk-", 32, 6  # 32 of 62 characters are 190 bits
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase


def make() -> str:
    """A new clear key: `sk-`, 32 random characters, and 6 that are the checksum of the rest."""
    body = _PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return body + _checksum(body)


def well_formed(clear: str) -> bool:
    """Whether it could be a key of ours: what could not is refused without a look at the table."""
    body, check = clear[:-_CHECK], clear[-_CHECK:]
    return len(clear) == len(_PREFIX) + _RANDOM + _CHECK and body.startswith(_PREFIX) and check == _checksum(body)


def digest(clear: str) -> str:
    return hashlib.sha256(clear.encode()).hexdigest()


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK):
        value, digit = divmod(value, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits
