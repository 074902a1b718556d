"""A file's name in a form, as clients write it; and a form that is too large."""

import http.client
import json

import httpx
import pytest

from handler.api import forms
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
