"""Whole requests: bodies in all kinds of methods, paths, credentials and headers."""

import urllib.parse
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.bodies import CANARY, NAMES, bodies
from tests.fuzz.case import FORMS, FRESH, Body, Case, Credential

POSTS = ("/v1/embeddings", "/invocations")
GETS = ("/", "/docs", "/openapi.json", "/v1/models", "/v1/pricing", "/api/models", "/health", "/ready", "/ping")
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# What a request target may hold on the wire, without the two that end a path.
_VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#")
_JUNK_PATH = st.text(_VISIBLE, max_size=30)
_ESCAPED = st.binary(max_size=12).map(urllib.parse.quote)
_SEGMENT = st.one_of(
    st.sampled_from(
        ["v1", "embeddings", "models", "pricing", "api", "health", ".", "..", "", "%2F", "%00", "%0A", "%zz", "%"]
    ),
    _JUNK_PATH,
    _ESCAPED,
)
_MODEL_NAMES = st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES).map(lambda name: name.replace("/", "%2F")))
_SPELLED = st.one_of(
    st.sampled_from([*POSTS, *GETS, "/embeddings", "/models", "/pricing"]),
    st.one_of(_MODEL_NAMES, _JUNK_PATH, _ESCAPED).map("/v1/models/".__add__),
)
_PATHS = st.one_of(
    _SPELLED,
    _SPELLED.map(lambda path: f"/{path}/"),
    _SPELLED.map(lambda path: path.replace("/", "//")),
    _SPELLED.map(lambda path: "".join(f"%{ord(letter):02x}" if letter != "/" else letter for letter in path)),
    st.lists(_SEGMENT, max_size=5).map(lambda segments: "/" + "/".join(segments)),
)
_QUERIES = st.one_of(st.just(""), st.text(_VISIBLE, max_size=20).map(lambda query: f"?api_key={CANARY}&{query}"))

# What a header's value may hold on the wire: blanks at its ends are not part of it.
_VALUE = st.text(
    st.one_of(
        st.characters(min_codepoint=0x20, max_codepoint=0x7E), st.characters(min_codepoint=0xA0, max_codepoint=0xFF)
    ),
    max_size=40,
)
_HEADERS = {
    "content-type": st.sampled_from(
        [
            *("application/json", "application/json; charset=utf-16", "text/plain", "", ";", "application/xml"),
            *("application/x-www-form-urlencoded", "application/octet-stream", "multipart/mixed", "json"),
            *("multipart/form-data", "Multipart/Form-Data; boundary=x"),
        ]
    ),
    "content-encoding": st.sampled_from(
        ["identity", "Identity", "", ", identity,Identity", "gzip", "br", "gzip, identity", "identity,deflate", "x"]
    ),
    "accept": st.one_of(st.sampled_from(["text/html", "application/json;q=0", "*/*"]), _VALUE),
    "accept-encoding": st.one_of(
        st.sampled_from(["gzip", "gzip;q=0", "*", "*;q=0", "br", "gzip;q=nan", "gzip;q=0.001, *;q=0", "identity;q=0"]),
        _VALUE,
    ),
    "idempotency-key": st.sampled_from(["", "\xe9", "k\xa0", "k" * 256, FRESH, f'{FRESH} and "more" of it']),
    "x-emblet-timing": st.one_of(st.sampled_from(["true", "false", "True", "1"]), _VALUE),
    "x-stainless-lang": st.sampled_from(["python", "js", "", "\xe9"]),
    "x-stainless-retry-count": st.one_of(st.sampled_from(["0", "-1", "9" * 30, "1.5", "\xb2"]), _VALUE),
    "x-stainless-read-timeout": st.one_of(st.sampled_from(["600", "nan", "-1", "inf"]), _VALUE),
    "x-client-request-id": _VALUE,
    "openai-organization": _VALUE,
    "openai-project": _VALUE,
    "origin": st.one_of(st.sampled_from(["null", "https://app.example.com", "*"]), _VALUE),
    "access-control-request-method": st.one_of(st.sampled_from(["POST", "post", "*", "A B"]), _VALUE),
    "access-control-request-headers": st.one_of(st.sampled_from(["authorization, x-a", ",,", "a b"]), _VALUE),
    "x-forwarded-proto": st.one_of(st.sampled_from(["https", "ftp"]), _VALUE),
    "x-forwarded-for": _VALUE,
    "cookie": _VALUE,
    "range": st.sampled_from(["bytes=0-1", "bytes=9-"]),
    "if-none-match": st.sampled_from(["*", '"x"']),
    "user-agent": _VALUE,
}
_NO_OBJECTS = st.binary(max_size=40).filter(lambda raw: b"{" not in raw).map(Body)
_FORMS = st.sampled_from([*FORMS])
_CREDENTIALS = st.one_of(
    st.just(()),
    st.builds(
        Credential, _FORMS, st.sampled_from(["inference", "admin", "admin", "admin", "unknown", "sk-garbage"])
    ).map(lambda c: (c,)),
    st.builds(
        lambda first, second: (Credential(first, "unknown"), Credential(second)),
        st.sampled_from(["bearer", "basic", "signature", "empty", "no base64"]),
        st.sampled_from(["api-key", "x-api-key"]),
    ),
)


@st.composite
def cases(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Case:
    """Most of them reach the body with a key that may embed; each of the other parts is seldom wrong by itself."""

    def seldom(strategy: st.SearchStrategy[Any], usual: Any, of: int = 10) -> Any:
        return draw(strategy) if draw(st.integers(1, of)) == of else usual

    target = seldom(st.builds(str.__add__, _PATHS, _QUERIES), "/v1/embeddings")
    names = draw(st.lists(st.sampled_from([*_HEADERS]), max_size=3, unique=True)) if draw(st.booleans()) else []
    return Case(
        body=seldom(_NO_OBJECTS, draw(bodies())),
        method=seldom(
            st.sampled_from(METHODS), "POST" if target == "/v1/embeddings" else draw(st.sampled_from(METHODS))
        ),
        target=target,
        credentials=seldom(_CREDENTIALS, (Credential("bearer"),), of=5),
        headers=tuple((name, draw(_HEADERS[name])) for name in names),
        chunks=seldom(st.lists(st.integers(1, 30), min_size=1, max_size=4).map(tuple), ()),
    )
