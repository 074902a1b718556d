"""A file's name in a form, as clients write it."""

import httpx
import pytest

from handler.api import forms

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
