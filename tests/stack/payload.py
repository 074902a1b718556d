"""Payload format 2.0: the event that a function URL makes of an HTTP request, and the response it makes of a result."""

import base64
import binascii
import contextlib
import json
import time
import urllib.parse
import uuid
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

URL_ID = "emblet0000000000000000000000test"
DOMAIN = f"{URL_ID}.lambda-url.us-east-1.on.aws"
JSON_TYPE = ("content-type", "application/json")

_OF_THE_CONNECTION = {"connection", "keep-alive", "transfer-encoding"}
_TEXT_TYPES = {
    "application/json",
    "application/javascript",
    "application/xml",
    "application/x-www-form-urlencoded",
}


def to_event(method: str, target: str, pairs: Iterable[tuple[str, str]], body: bytes, source_ip: str) -> dict[str, Any]:
    """The event Lambda makes of an HTTP request: names in lower case, repeated values joined, path still encoded."""
    path, _, query = target.partition("?")
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for name, value in ((name.lower(), value) for name, value in pairs):
        if name == "cookie":
            cookies += [each.strip() for each in value.split(";")]
        elif name not in _OF_THE_CONNECTION:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    now = time.time()
    headers |= {
        "host": DOMAIN,
        "x-amzn-trace-id": f"Root=1-{int(now):08x}-{uuid.uuid4().hex[:24]}",
        "x-forwarded-for": source_ip,
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
    }
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": URL_ID,
            "domainName": DOMAIN,
            "domainPrefix": URL_ID,
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": source_ip,
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": "$default",
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        values: dict[str, list[str]] = {}
        for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
            values.setdefault(name, []).append(value)
        event["queryStringParameters"] = {name: ",".join(each) for name, each in values.items()}
    if body:
        text = _as_text(body, headers)
        event["body"] = base64.b64encode(body).decode() if text is None else text
        event["isBase64Encoded"] = text is None
    return event


def to_response(result: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body that a function URL makes of a handler's result; ValueError where Lambda says 502."""
    if not isinstance(result, dict) or "statusCode" not in result:  # any other value is the body of a 200
        text = result if isinstance(result, str) else json.dumps(result)
        return HTTPStatus.OK, [JSON_TYPE], text.encode()
    status, text = result["statusCode"], result.get("body") or ""
    if not isinstance(status, int) or not isinstance(text, str):
        raise ValueError("statusCode is a number, body a string")
    try:
        body = base64.b64decode(text, validate=True) if result.get("isBase64Encoded") else text.encode()
    except binascii.Error as error:
        raise ValueError("body is not base64") from error
    headers = dict([JSON_TYPE]) | {name.lower(): str(value) for name, value in (result.get("headers") or {}).items()}
    ours = {"content-length", *_OF_THE_CONNECTION}
    pairs = [(name, value) for name, value in headers.items() if name not in ours]
    pairs += [("set-cookie", cookie) for cookie in result.get("cookies") or []]
    return status, pairs, body


def _as_text(body: bytes, headers: Mapping[str, str]) -> str | None:
    """What the event carries as it is, or None for what it carries as base64."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    plain = kind.startswith("text/") or kind.endswith(("+json", "+xml")) or kind in _TEXT_TYPES
    if plain and "content-encoding" not in headers:
        with contextlib.suppress(UnicodeDecodeError):
            return body.decode()
    return None
