"""What the schemas of the wire are made of: JSON Schema (2020-12), as data."""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

INTEGER: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
TEXT: Schema = {"type": "string"}
NAME: Schema = {"type": ["string", "null"]}
NULL: Schema = {"type": "null"}
TIME: Schema = {"type": "string", "format": "date-time"}


def ref(name: str) -> Schema:
    """A named schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def object_of(properties: Mapping[str, Schema], **optional: Schema) -> Schema:
    """An object with all of `properties`; those in `optional` may be absent."""
    return {"type": "object", "required": list(properties), "properties": {**properties, **optional}}


def array_of(items: Schema, about: str = "", **bounds: int) -> Schema:
    return {"type": "array", "items": items} | bounds | ({"description": about} if about else {})


def list_of(item: Schema, **extra: Schema) -> Schema:
    """OpenAI's list, or a page of one."""
    return object_of({"object": {"const": "list"}, "data": array_of(item), **extra})


def optional(kind: str, about: str, **more: Any) -> Schema:
    """A field for which null is as good as absent."""
    return {"type": [kind, "null"], "description": about} | more


def choice(values: tuple[str, ...], default: str, about: str) -> Schema:
    """A field with one of these values; null, and its absence, mean the default."""
    return {"enum": [*values, None], "default": default, "description": about}


def within(least: int, most: int, *default: int) -> Schema:
    """An integer of a range."""
    return {"type": "integer", "minimum": least, "maximum": most} | ({"default": default[0]} if default else {})
