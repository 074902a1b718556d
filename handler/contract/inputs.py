"""The `input` of a request: one text or many, or one array of token ids or many."""

from collections.abc import Sequence
from typing import Any

from handler.contract import errors, fields

MAX_INPUTS = 2048

Texts = tuple[str, ...]
TokenArrays = Sequence[list[int]]


def check(value: Any, *, reject_empty: bool, token_arrays: bool) -> tuple[Texts, TokenArrays]:
    """The texts or the arrays of token ids in a field's value, the other of the two empty.

    Not checked here is what the ids mean. Raises the first failure: absent, another type, an empty array, an element
    of another kind than the first, too many inputs, token arrays where there are to be none, an empty text where
    there is to be none.
    """
    if value is None:
        raise errors.MISSING_PARAMETER.error(param="input", field="input")
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise fields.wrong_type("input", "a string or an array", value)
    if not items:
        raise errors.EMPTY_ARRAY.error(param="input", field="input")
    kind: type[Any] = type(items[0])
    if error := _wrong_element(items, kind):
        raise error
    inputs = [items] if kind is int else items
    if len(inputs) > MAX_INPUTS:
        raise errors.TOO_MANY_INPUTS.error(param="input", most=MAX_INPUTS, n=len(inputs))
    if kind is str:
        if reject_empty and "" in inputs:
            raise empty_string(inputs.index(""))
        return tuple(inputs), ()
    if not token_arrays:
        raise errors.TOKEN_ARRAYS.error(param="input")
    return (), tuple(inputs)


def non_finite(index: int) -> errors.ApiError:
    """500 `non_finite_vector`: the model has made no vector of the input of this index."""
    return errors.NON_FINITE.error(param=f"input[{index}]", i=index)


def empty_string(index: int) -> errors.ApiError:
    """400 `empty_string`: the input of this index is the empty text, which EMPTY_INPUT refuses."""
    return errors.EMPTY_STRING.error(param=f"input[{index}]", i=index)


def _wrong_element(items: list[Any], kind: type[Any]) -> errors.ApiError | None:
    """The error of the first element that is wrong, in the order in which a reader meets them."""
    if kind not in (str, int, list):
        return fields.wrong_type("input[0]", "a string, an integer or an array", items[0])
    if kind is not list and set(map(type, items)) == {kind}:
        return None
    for index, item in enumerate(items):
        if type(item) is not kind:
            return fields.wrong_type(f"input[{index}]", fields.KINDS[kind], item)
        if kind is list and (error := _wrong_ids(item, f"input[{index}]")):
            return error
    return None


def _wrong_ids(ids: list[Any], name: str) -> errors.ApiError | None:
    if set(map(type, ids)) == {int}:
        return None
    if not ids:
        return errors.EMPTY_ARRAY.error(param=name, field=name)
    position = next(position for position, token in enumerate(ids) if type(token) is not int)
    return fields.wrong_type(f"{name}[{position}]", fields.KINDS[int], ids[position])
