"""The OpenAPI document of a service, held against its answers."""

from collections.abc import Iterator
from typing import Any

import httpx
from jsonschema import Draft202012Validator

Document = dict[str, Any]

# What the server puts around an answer, and what tells browsers and caches how to take it.
_AROUND = {"date", "server", "connection", "content-type", "content-length", "content-encoding", "vary"}
_AROUND |= {"access-control-allow-origin", "access-control-expose-headers", "x-amzn-requestid"}
_ANY = {"type": "object"}  # of which no field is told: the document's own shape


def fetch(url: str) -> Document:
    """The document of the service at this address."""
    found: Document = httpx.get(f"{url}/openapi.json", timeout=60).json()
    return found


def operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    """Each operation with its path and method."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method != "parameters":
                yield path, method, operation


def resolve(document: Document, node: Any) -> Any:
    """The node itself, or what its `$ref` names."""
    while isinstance(node, dict) and "$ref" in node:
        where = node["$ref"].removeprefix("#/").split("/")
        node = document
        for step in where:
            node = node[step]
    return node


def check(document: Document, schema: Any, value: Any) -> None:
    """Raise ValidationError unless the value has this shape."""
    Draft202012Validator(schema | {"components": document["components"]}).validate(value)


def conforms(document: Document, method: str, path: str, answer: Any) -> None:
    """Raise unless the document has this answer, httpx's or the test client's own: status, media type, shape, every
    field of the outermost object, and every header."""
    described = document["paths"][path][method.lower()]["responses"][str(answer.status_code)]
    if "content" in described:
        [(media, content)] = described["content"].items()
        assert answer.headers["content-type"].split(";")[0] == media
        schema = content["schema"]
        if schema != _ANY:
            schema = schema | {"unevaluatedProperties": False}
        check(document, schema, answer.json() if media == "application/json" else answer.text)
    else:
        assert answer.content == b""
    assert {*answer.headers} - _AROUND <= described["headers"].keys()
    for name, reference in described["headers"].items():
        header = resolve(document, reference)
        assert name in answer.headers or not header.get("required")
        if name in answer.headers:
            text = answer.headers[name]
            check(document, header["schema"], int(text) if header["schema"].get("type") == "integer" else text)
