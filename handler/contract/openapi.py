"""The OpenAPI 3.1 document, made when it is asked for: paths here, shapes in `schemas.py`, errors from `errors.py`."""

from collections.abc import Iterable, Mapping
from typing import Any

from handler.contract import errors, schemas, usage
from handler.contract.body import JSON
from handler.contract.errors import Problem
from handler.contract.models import Models
from handler.contract.schemas import Schema, ref
from handler.contract.usage import Report

VERSION = "0.1.0"  # pyproject.toml's, which the image does not have; a test holds them together

# What any route can answer; what a caller with a key can; and what only embedding can.
_ANYWHERE = (errors.UNFORESEEN,)
_PRICED = (errors.STORE_UNAVAILABLE, *_ANYWHERE)
_KEYED = (errors.NO_KEY, errors.WRONG_KEY, errors.STORE_UNAVAILABLE, *_ANYWHERE)
_BEYOND_ROUTES = (errors.UNKNOWN_URL, errors.WRONG_METHOD, errors.BROKEN_HTTP, errors.HEAD_TOO_LARGE)
_EMBEDDING = tuple(problem for problem in errors.table() if problem not in (*_BEYOND_ROUTES, errors.REPORT_TOO_LARGE))
_ASKED = (errors.INVALID_VALUE, *_KEYED)
_REPORTED = (errors.MISSING_PARAMETER, errors.REPORT_TOO_LARGE, errors.WRONG_ROLE, *_ASKED)

_ABOUT = """\
OpenAI's embeddings, from a function. Every failure, whatever the path, is an `Error`. Every path also answers with a
slash at its end, with doubled slashes and, below `/v1`, without `/v1`; every GET answers HEAD, everything OPTIONS.
A JSON body may come with any content type but `multipart/form-data`. Unknown fields are ignored."""


def document(models: Models, url: str, *, truncates: bool = False) -> Schema:
    """The interface as this deployment answers it under `url`; `truncates`: where a request does not say."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "emblet", "version": VERSION, "description": _ABOUT, "license": {"name": "MIT"}},
        "servers": [{"url": url}],
        "security": [{name: []} for name in _SECURITY],
        "paths": _paths(models),
        "components": {
            "schemas": schemas.components(models, truncates=truncates),
            "headers": _HEADERS,
            "securitySchemes": _SECURITY,
        },
    }


_SECURITY: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The password is the key; the user name is ignored."},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


def _header(about: str, **schema: Any) -> Schema:
    return {"description": about, "schema": schema or {"type": "string"}}


_COUNT = {"type": "integer", "minimum": 0}
_HEADERS: dict[str, Schema] = {
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
    "x-emblet-replay": _header("`true`: this request was billed before, and is not again.", const="true"),
    "location": _header("Where the whole answer is fetched with GET and without a key.", type="string", format="uri"),
    "server-timing": _header("Milliseconds of each part, if the request had `x-emblet-timing: true`."),
    "x-should-retry": _header("`false`: repeating cannot help. SDKs obey it.", const="false"),
    "retry-after": _header("Seconds to wait.", **_COUNT),
    "retry-after-ms": _header("Milliseconds to wait.", **_COUNT),
}
_ALWAYS = ("x-request-id", "openai-processing-ms", "openai-version")
_OF_A_KEY = (*_ALWAYS, "openai-organization")
_OF_A_LIMIT = tuple(name for name in _HEADERS if name.startswith("x-ratelimit"))
_OF_AN_EMBEDDING = (*_OF_A_KEY, *_OF_A_LIMIT, "x-emblet-token-arrays", "x-emblet-replay", "server-timing")
_OF_AN_ERROR = (*_OF_A_KEY, "x-should-retry", "retry-after", "retry-after-ms")

_IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A name of the caller's own for this request: with the same body it is billed once in 48 hours.",
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
}


def _paths(models: Models) -> dict[str, Schema]:
    embed: Schema = {
        "summary": "Embed one text, or up to 2,048.",
        "parameters": [_IDEMPOTENCY_KEY],
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("EmbeddingRequest")}}},
        "responses": _responses("The embeddings, in the order of their inputs.", "EmbeddingResponse", _EMBEDDING),
    }
    embed["responses"]["200"]["headers"] = _named(_OF_AN_EMBEDDING)
    embed["responses"]["303"] = {
        "description": "An answer too large for a function URL lies where `location` says, for 15 minutes.",
        "headers": _named((*_OF_AN_EMBEDDING, "location")),
        "content": {JSON: {"schema": ref("EmbeddingResult")}},
    }
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "description": "An id or alias, its slashes raw or as %2F.",
        "schema": {"type": "string", "minLength": 1},
        "examples": {name: {"value": name} for model in models.all for name in model.names},
    }
    one = _get("model", "One model, by id or alias.", "Model", (*_KEYED, errors.UNKNOWN_MODEL))
    own = _get("own_usage", "What the calling key has used; an admin key's whole account.", "OwnUsage", _ASKED)
    own["parameters"] = [
        _query("days", _within(1, usage.MAX_DAYS, usage.DEFAULT_DAYS), "Days, today the last of them.")
    ]
    ready = (errors.LOADING, *_ANYWHERE)
    return {
        "/v1/embeddings": {"post": embed | {"operationId": "embeddings"}},
        "/invocations": {"post": embed | {"operationId": "invocations", "summary": "SageMaker's name for embeddings."}},
        "/v1/models": {"get": _get("models", "The models, and an alias's row where pickers need it.", "ModelList")},
        "/v1/models/{name}": {"parameters": [name], "get": one},
        "/v1/pricing": {"get": _public("pricing", "Prices in USD per million tokens.", "PriceList", _PRICED)},
        "/api/models": {"get": _public("catalogue", "The models as a bare array.", {"ModelCard"}, _PRICED)},
        "/v1/organization/usage/embeddings": {"get": _report(usage.EMBEDDINGS, "Tokens and requests.", "UsagePage")},
        "/v1/organization/costs": {"get": _report(usage.COSTS, "Exact USD.", "CostsPage")},
        "/v1/usage": {"get": own},
        "/health": {"get": _public("health", "The process lives.", "Status")},
        "/ready": {"get": _public("ready", "A token has gone through the model.", "Status", ready)},
        "/ping": {"get": _public("ping", "As `/ready`.", "Status", ready)},
        "/": {"get": _page("home", "How to call this service.", "text/html", _PRICED)},
        "/docs": {"get": _page("docs", "As `/`.", "text/html", _PRICED)},
        "/openapi.json": {"get": _page("openapi", "This document.", JSON)},
    }


def _get(name: str, about: str, shape: str | set[str], problems: Iterable[Problem] = _KEYED) -> Schema:
    return {"operationId": name, "summary": about, "responses": _responses("OK", shape, problems)}


def _report(report: Report, about: str, shape: str) -> Schema:
    seconds = _within(0, usage.LAST_SECOND)
    limits = ", ".join(f"{name}: {width.default}, at most {width.most}" for name, width in report.widths.items())
    widths, most = [*report.widths], max(width.most for width in report.widths.values())
    accounts = "an admin key of account `*` sees all accounts, another its own"
    operation = _get(f"{report.name}_report", f"{about} For admin keys: {accounts}.", shape, _REPORTED)
    operation["parameters"] = [
        _query("start_time", seconds, "Unix seconds. The bucket that holds it is told whole.") | {"required": True},
        _query("end_time", seconds, "Unix seconds, exclusive; default: now. The last bucket is told whole too."),
        _query("bucket_width", {"enum": widths, "default": widths[0]}, "Buckets begin at UTC's boundaries."),
        _query("limit", _within(1, most), f"Buckets of a page. {limits}. One with many results may have fewer."),
        _query("group_by", _list({"enum": [*report.group_by]}), f"What to tell apart. {_LISTS}"),
        *(_query(name, _list({"type": "string"}), f"Only these. {_LISTS}") for name in report.filters),
        _query("page", {"type": "string"}, "The previous page's `next_page`, beside the same other parameters."),
    ]
    return operation


_LISTS = "As `name=a&name=b`, `name[]=a&name[]=b` or `name=a,b`."


def _query(name: str, schema: Schema, about: str) -> Schema:
    return {"name": name, "in": "query", "description": about, "schema": schema}


def _within(least: int, most: int, *default: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most} | ({"default": default[0]} if default else {})


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _public(name: str, about: str, shape: str | set[str], problems: Iterable[Problem] = _ANYWHERE) -> Schema:
    return _get(name, about, shape, problems) | {"security": []}


def _page(name: str, about: str, media: str, problems: Iterable[Problem] = _ANYWHERE) -> Schema:
    page = _public(name, about, "Status", problems)
    page["responses"]["200"]["content"] = {media: {"schema": {"type": "object" if media == JSON else "string"}}}
    return page


def _responses(about: str, shape: str | set[str], problems: Iterable[Problem]) -> dict[str, Schema]:
    """200 with a shape, or an array of the shape in a set; and the problems by their status."""
    schema = ref(shape) if isinstance(shape, str) else {"type": "array", "items": ref(*shape)}
    answers: dict[str, Schema] = {
        "200": {"description": about, "headers": _named(_ALWAYS), "content": {JSON: {"schema": schema}}}
    }
    by_status: dict[int, list[Problem]] = {}
    for problem in problems:
        by_status.setdefault(problem.status, []).append(problem)
    return answers | {str(status): _failure(found) for status, found in sorted(by_status.items())}


def _failure(problems: list[Problem]) -> Schema:
    """The envelope, with the `code`s that this status can have."""
    codes = list(dict.fromkeys(problem.code for problem in problems))
    return {
        "description": "\n".join(f"- {problem.message}" for problem in problems),
        "headers": _named((*_OF_AN_ERROR, *(_OF_A_LIMIT if problems[0].status == 429 else ()))),
        "content": {
            JSON: {
                "schema": {
                    "allOf": [ref("Error"), {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}]
                }
            }
        },
    }


def _named(names: Iterable[str]) -> Mapping[str, Schema]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
