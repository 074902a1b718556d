"""`multipart/form-data` (RFC 7578), as a body that is in memory."""

import re
from dataclasses import dataclass
from email.message import Message
from urllib.parse import unquote

from handler.contract import errors

_NAME = re.compile(r';\s*(filename\*|filename|name)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))', re.IGNORECASE)
_ESCAPED = re.compile(r'\\(["\\])')
_CODED = re.compile("%(?:22|0[0-9A-F]|1[0-9A-F])", re.IGNORECASE)
_MOST = 64  # parts: a form here has four
_HEAD = 16 << 10  # bytes of a part's head, two lines here: reading a name takes 180 times its bytes in memory


@dataclass(frozen=True)
class Part:
    """A field of a form; `filename` is None where it is no file."""

    name: str
    filename: str | None
    body: bytes


def read(content_type: str, body: bytes) -> dict[str, Part]:
    """The fields of a form by their names; of those with one name the last. Raises 415 where it is no form, and 400
    where it is none that can be read."""
    kind = Message()
    kind["content-type"] = content_type
    boundary = kind.get_param("boundary")
    if kind.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
        raise errors.UNSUPPORTED_MEDIA.error(value=content_type.partition(";")[0].strip())
    parts = (b"\r\n" + body).split(b"\r\n--" + boundary.encode("utf-8", "surrogateescape"), _MOST)
    if len(parts) < 3 or not parts[-1].startswith(b"--"):
        raise errors.BROKEN_FORM.error()
    found = [_part(each) for each in parts[1:-1]]
    return {part.name: part for part in found}


def _part(raw: bytes) -> Part:
    end = raw.find(b"\r\n\r\n", 0, _HEAD + 4)
    if end < 0:
        raise errors.BROKEN_FORM.error()
    lines = raw[:end].decode("utf-8", "replace").split("\r\n")[1:]
    disposition = next((line for line in lines if line.lower().startswith("content-disposition:")), "")
    names = {name.lower(): _ESCAPED.sub(r"\1", quoted or plain) for name, quoted, plain in _NAME.findall(disposition)}
    if "name" not in names:
        raise errors.BROKEN_FORM.error()
    filename = names.get("filename")
    if "filename*" in names:  # RFC 8187, which some clients send beside the other
        filename = unquote(names["filename*"].rpartition("'")[2])
    elif filename is not None:
        # So the HTML standard writes quotes and line breaks, and clients what else is no text; not the sign itself.
        filename = _CODED.sub(lambda code: unquote(code[0]), filename)
    return Part(names["name"], filename, raw[end + 4 :])
