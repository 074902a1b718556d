"""A file's name in a form, as clients write it; and a form that is too large."""

import http.client
import json
import tracemalloc

import httpx
import pytest

from handler.api import forms
from handler.contract import errors
from tests.stack.server import PlainServer

NAMES = ["in.jsonl", "größe 数据.jsonl", "50%20off, 100%25.jsonl", 'a"b\\c; name=d.jsonl', "a\r\nb.jsonl"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_the_name_that_a_client_gave_it(name: str) -> None:
    sent = httpx.Request("POST", "http://none", data={"purpose": "batch"}, files={"file": (name, b"{}")})
    found = forms.read(sent.headers["content-type"], sent.read())
    assert (found["file"].filename, found["file"].body) == (name, b"{}")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ('filename="a%22b%0d%0a.jsonl"', 'a"b\r\n.jsonl'),
        ("filename=plain%20.jsonl", "plain%20.jsonl"),
        ("filename=\"a%20b.jsonl\"; filename*=utf-8''a%20%C3%A9.jsonl", "a é.jsonl"),
    ],
)
def test_a_name_is_read_as_it_is_written(written: str, name: str) -> None:
    form = f"--x\r\ncontent-disposition: form-data; name=file; {written}\r\n\r\n{{}}\r\n--x--"
    assert forms.read("multipart/form-data; boundary=x", form.encode())["file"].filename == name


def form(length: int) -> bytes:
    """Of a file whose name has so many bytes."""
    head = b'content-disposition: form-data; name="file"; filename="' + b"a" * length + b'"'
    return b"--x\r\n" + head + b"\r\n\r\n{}\r\n--x--"


def test_the_head_of_a_part_has_16_kib() -> None:
    length = (16 << 10) - 100
    found = forms.read("multipart/form-data; boundary=x", form(length))["file"]
    assert (found.filename, found.body) == ("a" * length, b"{}")


@pytest.mark.parametrize("length", [16 << 10, 8 << 20])
def test_a_longer_head_is_refused_before_it_is_read(length: int) -> None:
    sent = form(length)
    tracemalloc.start()
    with pytest.raises(errors.ApiError) as refused:
        forms.read("multipart/form-data; boundary=x", sent)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused.value.body() == errors.BROKEN_FORM.error().body()
    assert peak < 3 * len(sent) + (1 << 20)  # the body is split


def test_a_file_larger_than_a_body_may_be_is_told_the_other_way(jobs_plain: PlainServer, inference_key: str) -> None:
    connection = http.client.HTTPConnection(jobs_plain.url.removeprefix("http://"))
    headers = {"authorization": f"Bearer {inference_key}", "content-type": "multipart/form-data; boundary=x"}
    connection.request("POST", "/v1/files", headers=headers | {"content-length": str((64 << 20) + 1)})
    answer = connection.getresponse()
    message = json.loads(answer.read())["error"]["message"]
    connection.close()
    assert answer.status == 413
    assert message == (
        "The request body is 67108865 bytes; at most 67108864 are accepted. Of a larger file, POST filename, purpose "
        "and bytes as JSON, and PUT it to the upload.url of the answer."
    )
