"""Bodies of `POST /v1/embeddings` that are nearly right."""

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import written
from tests.fuzz.case import Body
from tests.fuzz.written import BROKEN, UNUSUAL, NotJsonError

Values = st.SearchStrategy[Any]

MODEL = "all-minilm-l6-v2"
NAMES = (MODEL, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
WORD = "word "  # one token
CANARY = "q7canary"  # begins many texts, and may be seen nowhere else

# Short enough for the model's context whatever it is made of: no character is more than four tokens.
_TEXT = st.text(st.characters(), max_size=50)
_TEXTS = st.one_of(_TEXT, _TEXT.map(CANARY.__add__), st.sampled_from(["", " ", "\0", "</s> [SEP]", "\ud800", "\ufeff"]))
_LONG = st.sampled_from([253, 254, 255, 400]).map(WORD.__mul__)

# cl100k_base ends at 100,255, and has five more with holes between them.
_EDGES = (0, 100255, 100256, 100257, 100260, 100261, 100275, 100276, 100277, -1, 2**31, 2**63, 2**64, 10**100)
_IDS = st.integers(0, 100255)
_ID_ARRAYS = st.lists(_IDS, min_size=1, max_size=12)

_NUMBERS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(_EDGES))
_LEAVES = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXT, st.sampled_from(UNUSUAL))
_JUNK = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=3)),
    max_leaves=8,
)


def _mixed(draw: Callable[[Values], Any]) -> list[Any]:
    """Items of one kind, but for one of them."""
    items = draw(
        st.one_of(st.lists(_TEXTS, min_size=1, max_size=5), _ID_ARRAYS, st.lists(_ID_ARRAYS, min_size=1, max_size=4))
    )
    items.insert(draw(st.integers(0, len(items))), draw(_JUNK))
    return list(items)


def _damaged_ids(draw: Callable[[Values], Any]) -> list[list[Any]]:
    """Arrays of ids with one that is another thing, or an id at an edge."""
    arrays = draw(st.lists(_ID_ARRAYS, min_size=1, max_size=4))
    array = draw(st.sampled_from(arrays))
    thing = draw(_LEAVES if draw(st.booleans()) else st.sampled_from(_EDGES))
    array.insert(draw(st.integers(0, len(array))), thing)
    return list(arrays)


_RIGHT: dict[str, Values] = {
    "model": st.sampled_from(NAMES),
    "input": st.one_of(
        _TEXTS, st.lists(_TEXTS, min_size=1, max_size=6), _ID_ARRAYS, st.lists(_ID_ARRAYS, min_size=1, max_size=4)
    ),
    "encoding_format": st.sampled_from(["float", "base64", None]),
    "dimensions": st.sampled_from([384, None]),
    "user": st.one_of(st.none(), _TEXT),
    "truncate": st.sampled_from([True, False, None]),
    "embedding_types": st.sampled_from([["dense"], ["dense", "dense"], None]),
    "output_dtype": st.sampled_from(["float", None]),
    "multi_vector_dtype": st.sampled_from(["float16", "float32", None]),
}
_WRONG: dict[str, Values] = {
    "model": st.one_of(_TEXT, st.sampled_from([MODEL.upper(), f"{MODEL} ", f"{MODEL}\0", "", "{id}", "x" * 300])),
    "input": st.one_of(
        st.sampled_from([[], [[]], [[1], []], [[], "a"], [[], []], [[[1]]], [{}], [None], [True], [1.5], ["a", ["b"]]]),
        _LONG,
        st.lists(st.one_of(_LONG, _TEXTS), min_size=1, max_size=3),
        st.composite(_mixed)(),
        st.composite(_damaged_ids)(),
        st.lists(st.sampled_from(_EDGES), min_size=1, max_size=3),
        st.sampled_from(["a", 7, [7]]).map(lambda item: [item] * 2049),  # 2,049 ids are one input
    ),
    "encoding_format": st.sampled_from(["FLOAT", "hex", "", "base64 ", "{values}"]),
    "dimensions": st.sampled_from([383, 385, 0, -1, 1024, 2**31, 2**64, 10**308, 384.5, True, False, "384"]),
    "user": st.sampled_from([0, False, ["a"], {"name": CANARY}]),
    "truncate": st.sampled_from([0, 1, "true", "", [], {}]),
    "embedding_types": st.sampled_from(
        [[], {}, "dense", ["Dense"], ["sparse"], ["dense", "multi_vector"], [None], ["dense", 1], [["dense"]]]
    ),
    "output_dtype": st.sampled_from(["int8", "uint8", "binary", "ubinary", "Float", "float32", ""]),
    "multi_vector_dtype": st.sampled_from(["float64", "FLOAT16", "", "int8"]),
}
_ALWAYS = ("model", "input")
_ANY_NAME = st.one_of(_TEXT, st.sampled_from(["Model", "inputs", "prompt", "task", "", "__proto__", "input_type"]))


@st.composite
def bodies(draw: Callable[[Values], Any]) -> Body:
    """A right request, or one with a few faults; then, seldom, with faults of the JSON itself."""
    wrong = draw(st.lists(st.sampled_from([*_WRONG, "input", "input", "input"]), max_size=3, unique=True))
    pairs: list[tuple[str, Any]] = []
    for field in _RIGHT:
        if field in wrong:
            pairs.append((field, draw(st.one_of(_WRONG[field], _JUNK))))
        elif field in _ALWAYS or draw(st.integers(0, 3)) == 3:
            pairs.append((field, draw(_RIGHT[field])))
    if draw(st.integers(0, 3)) == 3:
        pairs.insert(0, (draw(st.one_of(st.sampled_from([*_RIGHT]), _ANY_NAME)), draw(_JUNK)))
    if draw(st.integers(0, 7)) == 7:
        del pairs[draw(st.integers(0, len(pairs) - 1))]
    if draw(st.integers(0, 7)) == 7:
        pairs.insert(draw(st.integers(0, len(pairs))), (draw(_ANY_NAME), draw(st.sampled_from(BROKEN))))
    return _damaged(draw, _body(pairs, escaped=draw(st.booleans())))


def _body(pairs: list[tuple[str, Any]], *, escaped: bool) -> Body:
    raw = written.members(pairs, escaped=escaped).encode()
    try:
        return Body(raw, {name: written.meaning(value) for name, value in pairs})
    except NotJsonError:
        return Body(raw)


def with_fields(**fields: Any) -> Body:
    """A body with these fields beside, or in place of, those of the smallest right one."""
    return _body([*({"model": MODEL, "input": "a"} | fields).items()], escaped=False)


def _damaged(draw: Callable[[Values], Any], body: Body) -> Body:
    raw = body.raw
    match draw(st.integers(0, 23)):
        case 20:  # cut: never at its end, which is a bracket
            return Body(raw[: draw(st.integers(0, len(raw) - 1))])
        case 21:
            return Body(raw + draw(st.sampled_from([b"x", b"{}", b"]", b"\0", b",", b"\xef\xbb\xbf", b"//"])))
        case 22:
            at = draw(st.integers(0, len(raw)))
            return Body(raw[:at] + draw(st.sampled_from([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5"])) + raw[at:])
        case 23:
            other: Body = draw(
                st.sampled_from(
                    [
                        Body(b" \n\t\r" + raw + b"\r\n ", body.values),
                        Body(b"\xef\xbb\xbf" + raw, body.values),
                        Body(b"\xef\xbb\xbf" * 2 + raw),
                        Body(raw.decode().encode("utf-16")),
                        Body(raw.decode().encode("utf-32-le")),
                        Body(b"[" + raw + b"]"),
                        *map(Body, (b"", b" ", b"null", b"1", b'"text"', b"[]", b"input=a&model=b", b"\0" * 9)),
                    ]
                )
            )
            return other
    return body
