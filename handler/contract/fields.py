"""A field of a request's object, taken by its JSON kind; null is as good as absent."""

from collections.abc import Mapping
from typing import Any

from handler.contract import errors

KINDS = {str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "an array", dict: "an object"}


def given(values: Mapping[str, Any], field: str, kind: type) -> Any:
    """The field's value, None if it is absent or null. Raises `invalid_type` for another kind; `true` is no integer."""
    value = values.get(field)
    if value is not None and type(value) is not kind:
        raise wrong_type(field, KINDS[kind], value)
    return value


def choice(values: Mapping[str, Any], field: str, choices: tuple[str, ...]) -> str | None:
    """The field's value, None if it is absent or null. Raises `invalid_type`, or `invalid_value` outside `choices`."""
    value: str | None = given(values, field, str)
    if value is not None and value not in choices:
        raise errors.INVALID_VALUE.error(param=field, value=value, values=quoted(choices))
    return value


def quoted(names: tuple[str, ...]) -> str:
    """Names as messages list them."""
    return ", ".join(f"'{name}'" for name in names)


def wrong_type(field: str, expected: str, value: Any) -> errors.ApiError:
    """400 `invalid_type`: the field is not of the kind that it should be."""
    return errors.INVALID_TYPE.error(param=field, field=field, expected=expected, got=kind_of(value))


def kind_of(value: Any) -> str:
    """The JSON kind of a value, as messages name it."""
    return "null" if value is None else KINDS[type(value)]
