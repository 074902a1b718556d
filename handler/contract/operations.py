"""What the OpenAPI document's operations are made of: their parameters, and answers with shape, headers and errors."""

from collections.abc import Iterable

from handler.contract import errors
from handler.contract.body import JSON
from handler.contract.errors import Problem
from handler.contract.headers import ALWAYS, OF_A_KEY, named
from handler.contract.shapes import Schema, ref

Shape = str | set[str]  # a schema's name; in a set, an array of it

# What any route can answer; what one can that needs a key.
ANYWHERE = (errors.UNSUPPORTED_MEDIA, errors.UNFORESEEN)
KEYED = (errors.NO_KEY, errors.WRONG_KEY, errors.STORE_UNAVAILABLE, *ANYWHERE)


def operation(
    name: str, about: str, shape: Shape, problems: Iterable[Problem] = KEYED, headers: Iterable[str] = OF_A_KEY
) -> Schema:
    """An operation that answers 200 with a shape."""
    return {"operationId": name, "summary": about, "responses": responses("OK", shape, problems, headers)}


def public(name: str, about: str, shape: Shape, problems: Iterable[Problem] = ANYWHERE) -> Schema:
    """One that needs no key."""
    return operation(name, about, shape, problems, ALWAYS) | {"security": []}


def query(name: str, schema: Schema, about: str) -> Schema:
    """A parameter of the query."""
    return {"name": name, "in": "query", "description": about, "schema": schema}


def idempotency(about: str) -> Schema:
    """The parameter under whose name a request counts once; `about`: what that means."""
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "description": f"A name of the caller's own for this request: {about}",
        "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    }


def responses(about: str, shape: Shape, problems: Iterable[Problem], headers: Iterable[str]) -> dict[str, Schema]:
    """200 with a shape and headers, and the problems by their status."""
    schema = ref(shape) if isinstance(shape, str) else {"type": "array", "items": ref(*shape)}
    answers: dict[str, Schema] = {
        "200": {"description": about, "headers": named(headers), "content": {JSON: {"schema": schema}}}
    }
    by_status: dict[int, list[Problem]] = {}
    for problem in problems:
        by_status.setdefault(problem.status, []).append(problem)
    known = [name for name in headers if name in OF_A_KEY]
    return answers | {str(status): _failure(found, known) for status, found in sorted(by_status.items())}


def _failure(problems: list[Problem], headers: Iterable[str]) -> Schema:
    """The envelope, with the `code`s that this status can have, and what is told beside it."""
    codes, status = list(dict.fromkeys(problem.code for problem in problems)), problems[0].status
    told = [*(ALWAYS if status == 401 else headers), *(name for problem in problems for name, _ in problem.headers)]
    told += ["retry-after", "retry-after-ms"] if status in (429, 503) else []
    return {
        "description": "\n".join(f"- {problem.message}" for problem in problems),
        "headers": named(told),
        "content": {
            JSON: {
                "schema": {
                    "allOf": [ref("Error"), {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}]
                }
            }
        },
    }
