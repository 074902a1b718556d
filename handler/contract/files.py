"""Files on the wire: what an upload may say of itself, a page of them, and the object that stands for one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handler.contract import errors, fields

MAX_BYTES = 5 << 30  # of one PUT to S3 (S3 user guide, "Uploading objects")
MOST = 10_000  # files of a page, which is also what one has where nothing is said

LONGEST_NAME = 1024  # characters of a filename, which a row keeps
SHORTEST_S, LONGEST_S = 3600, 30 * 86400  # that a file is kept


@dataclass(frozen=True)
class File:
    """A file of an account. `key`: where its bytes lie in the results bucket; `status`: `uploaded` until they do, then
    `processed`."""

    id: str
    account: str
    key: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str
    expires_at: int

    def wire(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": self.status,
            "expires_at": self.expires_at,
            "status_details": None,
        }


@dataclass(frozen=True)
class Upload:
    """What is said of a file that comes; `bytes`: how many will be put later, None for those that are here."""

    filename: str
    lasts_s: int
    bytes: int | None = None


@dataclass(frozen=True)
class Page:
    """Which part of a list is wanted; `after`: the last id that is known."""

    limit: int
    after: str | None = None
    ascending: bool = False
    purpose: str | None = None


def form(parts: Mapping[str, str], filename: str | None) -> Upload:
    """An upload out of a form's text fields; `filename`: of its field `file`, None where that is none of a file.

    Raises the first failure, 400.
    """
    if filename is None and "file" in parts:
        raise fields.wrong_type("file", "an upload with a filename (in curl file=@PATH)", parts["file"])
    if filename is None:
        raise errors.MISSING_PARAMETER.error(param="file", field="file")
    if "expires_after" in parts:
        fields_of_it = "the fields 'expires_after[anchor]' and 'expires_after[seconds]'"
        raise fields.wrong_type("expires_after", fields_of_it, parts["expires_after"])
    kept = {"anchor": parts.get("expires_after[anchor]"), "seconds": parts.get("expires_after[seconds]")}
    seconds = kept["seconds"]
    whole = seconds is not None and seconds.isascii() and seconds.isdigit() and len(seconds) < 10
    numbers = kept | {"seconds": int(seconds or "") if whole else seconds}
    return _upload(filename, parts, numbers if any(value is not None for value in kept.values()) else None)


def promised(values: Mapping[str, Any]) -> Upload:
    """An upload that says how many bytes it will put. Raises the first failure, 400."""
    filename = fields.given(values, "filename", str)
    if filename is None:
        raise errors.MISSING_PARAMETER.error(param="filename", field="filename")
    upload = _upload(filename, values, fields.given(values, "expires_after", dict))
    size = fields.given(values, "bytes", int)
    if size is None:
        raise errors.MISSING_PARAMETER.error(param="bytes", field="bytes")
    if not 0 < size <= MAX_BYTES:
        raise errors.INVALID_VALUE.error(param="bytes", value=str(size), values=f"1 to {MAX_BYTES}")
    return Upload(upload.filename, upload.lasts_s, size)


def _upload(filename: str, values: Mapping[str, Any], kept: Mapping[str, Any] | None) -> Upload:
    purpose = fields.choice(values, "purpose", ("batch",))
    if purpose is None:
        raise errors.MISSING_PARAMETER.error(param="purpose", field="purpose")
    if not filename.endswith(".jsonl"):
        raise errors.FILE_FORMAT.error()
    if len(filename) > LONGEST_NAME:
        most = f"names of {LONGEST_NAME} characters at most"
        raise errors.INVALID_VALUE.error(param="filename", value=filename, values=most)
    return Upload(filename, lasting(kept, "expires_after"))


def lasting(values: Mapping[str, Any] | None, field: str) -> int:
    """Seconds that a file is kept, by an object of `anchor` and `seconds`. Raises 400 naming the part of `field`."""
    if values is None:
        return LONGEST_S
    named = {f"{field}[{part}]": values.get(part) for part in ("anchor", "seconds")}
    for part, value in named.items():
        if value is None:
            raise errors.MISSING_PARAMETER.error(param=part, field=part)
    fields.choice(named, f"{field}[anchor]", ("created_at",))
    part = f"{field}[seconds]"
    seconds: int = fields.given(named, part, int)
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise errors.INVALID_VALUE.error(param=part, value=str(seconds), values=f"{SHORTEST_S} to {LONGEST_S}")
    return seconds


def page(query: Mapping[str, str], most: int, default: int) -> Page:
    """The page that a query asks for; what it does not know in it is ignored. Raises 400."""
    text = query.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise errors.INVALID_VALUE.error(param="limit", value=text, values=f"1 to {most}")
    order = fields.choice(query, "order", ("asc", "desc"))
    return Page(int(text), query.get("after") or None, order == "asc", query.get("purpose") or None)


def listed(items: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page as it is answered."""
    ends = [items[place]["id"] if items else None for place in (0, -1)]
    return {"object": "list", "data": items, "first_id": ends[0], "last_id": ends[1], "has_more": more}
