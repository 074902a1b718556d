"""Which accounts there are: those that have a key, which is never deleted, and those that have rollups."""

from collections.abc import Iterable

from handler.billing.accounts import ALL_ACCOUNTS
from handler.billing.keytable import KeyTable


def accounts(keys: KeyTable, rolled: Iterable[str] = ()) -> list[str]:
    """All of them, ascending; `rolled`: those that have rollups. Raises botocore's errors."""
    return sorted({key.caller.account for _, key in keys.list()}.union(rolled) - {ALL_ACCOUNTS})


def chosen(asked: str | None, known: list[str]) -> list[str]:
    """The one that is asked for, or all. ValueError for one that is not known: it is misspelt, and to say that it has
    used nothing would be no answer."""
    if asked is None:
        return known
    if asked not in known:
        raise ValueError(f"no account {asked}: it has neither keys nor rollups; `keys list` shows which have keys")
    return [asked]
