"""The OpenAPI 3.1 document, made when it is asked for: paths here and in `jobpaths.py`, shapes in `schemas.py` and
`jobschemas.py`, headers in `headers.py`, errors from `errors.py`."""

from collections.abc import Iterable
from dataclasses import dataclass

from handler.contract import errors, jobpaths, jobschemas, schemas, usage
from handler.contract.body import JSON
from handler.contract.embeddings import Rules
from handler.contract.errors import Problem
from handler.contract.headers import HEADERS, OF_A_KEY, OF_A_LIMIT, OF_A_PAGE, named
from handler.contract.models import Models
from handler.contract.operations import ANYWHERE, KEYED, idempotency, operation, public, query, responses
from handler.contract.shapes import Schema, array_of, ref, within
from handler.contract.usage import Report

VERSION = "0.1.0"  # pyproject.toml's, which the image does not have; a test holds them together

_PRICED = (errors.STORE_UNAVAILABLE, *ANYWHERE)
_BEYOND_ROUTES = (errors.UNKNOWN_URL, errors.WRONG_METHOD, errors.BROKEN_HTTP, errors.HEAD_TOO_LARGE)
_OF_FILES = (errors.FILE_FORMAT, errors.BROKEN_FORM, errors.FILE_TOO_LARGE, errors.NO_FILE, errors.NOT_PUT)
_OF_JOBS = (*_OF_FILES, errors.NOT_CANCELLABLE, errors.NO_BATCH)
_NO_EMBEDDINGS = (*_BEYOND_ROUTES, errors.REPORT_TOO_LARGE, *_OF_JOBS)
_ASKED = (errors.INVALID_VALUE, *KEYED)
_REPORTED = (errors.MISSING_PARAMETER, errors.REPORT_TOO_LARGE, errors.WRONG_ROLE, *_ASKED)

_ABOUT = """\
OpenAI's embeddings, from a function. Every failure, whatever the path, is an `Error`. Every path also answers with a
slash at its end, with doubled slashes and, below `/v1`, without `/v1`; every GET answers HEAD, everything OPTIONS.
A JSON body may come with any content type but `multipart/form-data`, and with no content coding. Unknown fields are
ignored. JSON is sent in gzip to who accepts it, and pages of other origins may read it as the deployment lets them."""


@dataclass(frozen=True)
class Deployment:
    """What settings, layer and host decide about the interface. `rules`: of every request; `bounded`: whether an answer
    must fit its host, and `redirects`: whether there can be one to an answer that does not; `metered`: `/metrics`;
    `jobs`: files and batches."""

    rules: Rules
    bounded: bool = False
    redirects: bool = False
    metered: bool = False
    jobs: bool = False

    def embedding(self) -> list[Problem]:
        """The errors that an embedding can have here."""
        possible = {
            errors.EMPTY_STRING: self.rules.reject_empty,
            errors.TOKEN_ID: self.rules.token_arrays,
            errors.TOKEN_ARRAYS: not self.rules.token_arrays,
            errors.RESPONSE_TOO_LARGE: self.bounded,
            **dict.fromkeys(_NO_EMBEDDINGS, False),
        }
        return [problem for problem in errors.table() if possible.get(problem, True)]


def document(models: Models, url: str, deployment: Deployment) -> Schema:
    """The interface as this deployment answers it under `url`."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "emblet", "version": VERSION, "description": _ABOUT, "license": {"name": "MIT"}},
        "servers": [{"url": url}],
        "security": [{name: []} for name in _SECURITY],
        "paths": _paths(models, deployment),
        "components": {
            "schemas": schemas.components(models, deployment.rules)
            | (jobschemas.components() if deployment.jobs else {}),
            "headers": HEADERS,
            "securitySchemes": _SECURITY,
        },
    }


_SECURITY: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The password is the key; the user name is ignored."},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}

_COUNTED = ("400", "429", "500", "503", "504")  # errors that a request can have once it was counted against its limits

_TIMING: Schema = {
    "name": "x-emblet-timing",
    "in": "header",
    "description": "With `true` the answer's `server-timing` tells the time of each part.",
    "schema": {"type": "string"},
}


def _paths(models: Models, deployment: Deployment) -> dict[str, Schema]:
    counted = (*OF_A_LIMIT, *(["x-emblet-token-arrays"] if deployment.rules.token_arrays else []))
    answered = (*OF_A_KEY, *counted, "x-emblet-replay", "server-timing")
    embed: Schema = {
        "summary": "Embed one text, or up to 2,048.",
        "parameters": [idempotency("with the same body it is billed once in 48 hours."), _TIMING],
        "requestBody": {"required": True, "content": {JSON: {"schema": ref("EmbeddingRequest")}}},
        "responses": responses(
            "The embeddings, in the order of their inputs.", "EmbeddingResponse", deployment.embedding(), answered
        ),
    }
    for status in _COUNTED:
        embed["responses"][status]["headers"] |= named(counted)
    if deployment.redirects:
        embed["responses"]["303"] = {
            "description": "An answer too large for a function URL lies where `location` says, for 15 minutes.",
            "headers": named((*answered, "location")),
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
    one = operation("model", "One model, by id or alias.", "Model", (*KEYED, errors.UNKNOWN_MODEL))
    own = operation("own_usage", "What the calling key has used; an admin key's whole account.", "OwnUsage", _ASKED)
    own["parameters"] = [query("days", within(1, usage.MAX_DAYS, usage.DEFAULT_DAYS), "Days, today the last of them.")]
    ready = (errors.LOADING, *ANYWHERE)
    metrics = _page("metrics", "What this process has done, for Prometheus.", "text/plain")
    return {
        "/v1/embeddings": {"post": embed | {"operationId": "embeddings"}},
        "/invocations": {"post": embed | {"operationId": "invocations", "summary": "SageMaker's name for embeddings."}},
        "/v1/models": {
            "get": operation("models", "The models, and an alias's row where pickers need it.", "ModelList")
        },
        "/v1/models/{name}": {"parameters": [name], "get": one},
        "/v1/pricing": {"get": public("pricing", "Prices in USD per million tokens.", "PriceList", _PRICED)},
        "/api/models": {"get": public("catalogue", "The models as a bare array.", {"ModelCard"}, _PRICED)},
        "/v1/organization/usage/embeddings": {"get": _report(usage.EMBEDDINGS, "Tokens and requests.", "UsagePage")},
        "/v1/organization/costs": {"get": _report(usage.COSTS, "Exact USD.", "CostsPage")},
        "/v1/usage": {"get": own},
        "/health": {"get": public("health", "The process lives.", "Status")},
        "/ready": {"get": public("ready", "A token has gone through the model.", "Status", ready)},
        "/ping": {"get": public("ping", "As `/ready`.", "Status", ready)},
        "/": {"get": _page("home", "How to call this service.", "text/html", _PRICED)},
        "/docs": {"get": _page("docs", "As `/`.", "text/html", _PRICED)},
        "/openapi.json": {"get": _page("openapi", "This document.", JSON)},
        **(jobpaths.paths(bounded=deployment.bounded) if deployment.jobs else {}),
        **({"/metrics": {"get": metrics}} if deployment.metered else {}),
    }


def _report(report: Report, about: str, shape: str) -> Schema:
    seconds = within(0, usage.LAST_SECOND)
    limits = ", ".join(f"{name}: {width.default}, at most {width.most}" for name, width in report.widths.items())
    widths, most = [*report.widths], max(width.most for width in report.widths.values())
    accounts = "an admin key of account `*` sees all accounts, another its own"
    told = operation(f"{report.name}_report", f"{about} For admin keys: {accounts}.", shape, _REPORTED)
    told["parameters"] = [
        query("start_time", seconds, "Unix seconds. The bucket that holds it is told whole.") | {"required": True},
        query("end_time", seconds, "Unix seconds, exclusive; default: now. The last bucket is told whole too."),
        query("bucket_width", {"enum": widths, "default": widths[0]}, "Buckets begin at UTC's boundaries."),
        query("limit", within(1, most), f"Buckets of a page. {limits}. One with many results may have fewer."),
        query("group_by", array_of({"enum": [*report.group_by]}), f"What to tell apart. {_LISTS}"),
        *(query(name, array_of({"type": "string"}), f"Only these. {_LISTS}") for name in report.filters),
        query("page", {"type": "string"}, "The previous page's `next_page`, beside the same other parameters."),
    ]
    return told


_LISTS = "As `name=a&name=b`, `name[]=a&name[]=b` or `name=a,b`."


def _page(name: str, about: str, media: str, problems: Iterable[Problem] = ANYWHERE) -> Schema:
    page = public(name, about, "Status", problems)
    answer = page["responses"]["200"]
    answer["content"] = {media: {"schema": {"type": "object" if media == JSON else "string"}}}
    if media == "text/html":
        answer["headers"] = named(OF_A_PAGE)
    return page
