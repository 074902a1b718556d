"""What the operator's tools have in common: which table they work on, and how they say what is wrong."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from handler import settings
from handler.settings import SettingError
from handler.store import StoreUnavailableError

INTERRUPTED = 130  # what a shell calls the end by Ctrl-C


def run(work: Callable[[], int], hint: str = "") -> int:
    """The work's exit status; or 1, with what an operator can do something about on stderr, and this behind it; or
    INTERRUPTED."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return work()
    except (BotoCoreError, ClientError, OSError, StoreUnavailableError, ValueError) as error:
        print(f"error: {error}{hint}", file=sys.stderr)  # noqa: T201
    except KeyboardInterrupt:
        print(f"interrupted; what was under way may be done or not{hint}", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    return 1


def table(asked: str | None, field: str, option: str = "--table") -> str:
    """A table as the call names it, or else the settings. Raises SettingError, which says how it can be named."""
    name = asked or str(getattr(settings.read(), field))
    if not name:
        raise SettingError(f"which table? Name it with {option}, or set {field.upper()} (`python -m handler.settings`)")
    return name


@contextmanager
def on(table: str) -> Iterator[None]:
    """What DynamoDB refuses within is said with the table's name, which its own words lack. Raises ValueError."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        raise ValueError(f"table {table}: {error}") from error
