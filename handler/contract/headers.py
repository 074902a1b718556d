"""The headers of answers as JSON Schema (2020-12), as data: what the OpenAPI document refers to."""

from collections.abc import Iterable
from typing import Any

from handler.contract.shapes import Schema


def named(names: Iterable[str]) -> dict[str, Schema]:
    """References to headers, as an answer has them."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _header(about: str, **schema: Any) -> Schema:
    return {"description": about, "schema": schema or {"type": "string"}}


_COUNT = {"type": "integer", "minimum": 0}
HEADERS: dict[str, Schema] = {
    "x-request-id": _header("Names the request; also in the log.", type="string", pattern="^req_[0-9a-f]{32}$")
    | {"required": True},
    "openai-processing-ms": _header("Milliseconds.", **_COUNT),
    "openai-version": _header("Of OpenAI's API.", const="2020-10-01"),
    "openai-organization": _header("The key's account."),
    **{
        f"x-ratelimit-{what}-{of}": _header(f"For keys with a limit of {of}: {about}", **schema)
        for of in ("requests", "tokens")
        for what, about, schema in (
            ("limit", "how many a minute.", _COUNT),
            ("remaining", "how many are left in it.", _COUNT),
            ("reset", "until it is whole again, such as `547ms` or `6m0s`.", {"type": "string"}),
        )
    },
    "x-emblet-token-arrays": _header("What token ids were read as, if any were sent.", enum=["cl100k", "model"]),
    "x-emblet-replay": _header(
        "`true`: what this request asks for was done, and billed, before; it is not again.", const="true"
    ),
    "location": _header("Where the whole answer is fetched with GET and without a key.", type="string", format="uri"),
    "server-timing": _header(
        "Milliseconds of each part (app, auth, read, parse, tokenize, limits, encode, render, store, record), "
        "if the request had `x-emblet-timing: true`."
    ),
    "x-should-retry": _header("`false`: repeating cannot help. SDKs obey it.", const="false"),
    "retry-after": _header("Seconds to wait.", **_COUNT),
    "retry-after-ms": _header("Milliseconds to wait.", **_COUNT),
    "content-security-policy": _header("The page runs nothing, and loads nothing from elsewhere."),
    "x-content-type-options": _header("It is what its type says.", const="nosniff"),
}
ALWAYS = ("x-request-id", "openai-processing-ms", "openai-version")
OF_A_KEY = (*ALWAYS, "openai-organization")
OF_A_LIMIT = tuple(name for name in HEADERS if name.startswith("x-ratelimit"))
OF_A_PAGE = (*ALWAYS, "content-security-policy", "x-content-type-options")
