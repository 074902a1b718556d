"""A request as it goes out, byte for byte, with what its maker knows of it."""

import base64
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Pairs = tuple[tuple[str, str], ...]
Who = Literal["nobody", "stranger", "admin", "inference"]

# In a header's value, what is another one each time that it goes out: a request's own name may not be used again.
FRESH = "$FRESH"

# How a secret is sent. What is no credential in the contract's eyes takes none.
FORMS: dict[str, Callable[[str], tuple[str, str]]] = {
    "bearer": lambda key: ("authorization", f"Bearer {key}"),
    "bearer in another case": lambda key: ("Authorization", f"bEARER   {key} "),
    "basic": lambda key: ("authorization", "Basic " + base64.b64encode(f"a b:{key}".encode()).decode()),
    "api-key": lambda key: ("api-key", f" {key}"),
    "x-api-key": lambda key: ("X-Api-Key", key),
    "no base64": lambda _: ("authorization", "Basic ~~~"),
    "no UTF-8": lambda _: ("authorization", "Basic /w=="),
    "signature": lambda _: ("authorization", "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host, Signature=00"),
    "empty": lambda _: ("authorization", "Bearer "),
}


@dataclass(frozen=True)
class Credential:
    """`secret` names a key of the run, or is one that nobody has."""

    form: str
    secret: str = "inference"

    @property
    def who(self) -> Who:
        if self.form in ("signature", "empty"):
            return "nobody"
        if self.form not in ("no base64", "no UTF-8") and self.secret in ("inference", "admin"):
            return self.secret  # type: ignore[return-value]
        return "stranger"


@dataclass(frozen=True)
class Body:
    """`values`: the object that the bytes say; None where they are not JSON, or no object."""

    raw: bytes = b""
    values: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Case:
    """`credentials` in the order in which the contract looks for them; `chunks`: sizes of a body that does not tell its
    length; the last one takes the rest."""

    body: Body = Body()
    method: str = "POST"
    target: str = "/v1/embeddings"
    credentials: tuple[Credential, ...] = (Credential("bearer"),)
    headers: Pairs = (("content-type", "application/json"),)
    chunks: tuple[int, ...] = ()

    @property
    def who(self) -> Who:
        return next((each.who for each in self.credentials if each.who != "nobody"), "nobody")

    def header(self, name: str) -> str | None:
        """As its reader sees it: without the blanks around it."""
        return next((value.strip(" \t") for each, value in self.headers if each == name), None)

    def pairs(self, keys: Mapping[str, str]) -> Pairs:
        """Every header but those of the body's length."""
        credentials = (FORMS[each.form](keys.get(each.secret, each.secret)) for each in self.credentials)
        headers = ((name, value.replace(FRESH, uuid.uuid4().hex)) for name, value in self.headers)
        return (*credentials, *headers)

    def wire(self, keys: Mapping[str, str]) -> bytes:
        """All of the request in HTTP/1.1."""
        head = f"{self.method} {self.target} HTTP/1.1\r\nhost: emblet.test\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.pairs(keys))
        if not self.chunks:
            return f"{head}content-length: {len(self.body.raw)}\r\n\r\n".encode("latin-1") + self.body.raw
        return f"{head}transfer-encoding: chunked\r\n\r\n".encode("latin-1") + _chunked(self.body.raw, self.chunks)


def _chunked(raw: bytes, sizes: tuple[int, ...]) -> bytes:
    parts, start = [], 0
    for size in sizes:
        parts.append(raw[start : start + size])
        start += size
    parts.append(raw[start:])
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"
