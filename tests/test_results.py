"""Answers too large for their door, on the emulator's S3, and the address that AWS itself would be asked for."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from handler import settings, store
from handler.results import VALID_S, Results
from tests.stack.ministack import MiniStack

BODY = b'{"object":"list","data":[]}'


@pytest.fixture
def results(ministack: MiniStack) -> Results:
    boto3.client("s3").create_bucket(Bucket="results-of-tests")
    return Results(store.s3, "results-of-tests", lambda: 1_764_000_000.9)


def test_an_answer_is_fetched_from_its_address_without_a_key(results: Results) -> None:
    place = results.put(BODY, "acct_test", "5f")
    assert place.expires_at == 1_764_000_000 + VALID_S
    found = httpx.get(place.url)
    assert (found.status_code, found.content) == (200, BODY)
    assert found.headers["content-type"] == "application/json"
    assert urlsplit(place.url).path == "/results-of-tests/answers/acct_test/5f.json"


def test_a_bucket_out_of_reach_is_said_to_be(ministack: MiniStack) -> None:
    with pytest.raises(store.StoreUnavailableError, match="NoSuchBucket on nowhere"):
        Results(store.s3, "nowhere").put(BODY, "acct_test", "5f")


@pytest.fixture
def on_aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on AWS, without a stand-in's address."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-the-role")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which remembers credentials
    for made in (settings.read, store._s3):
        made.cache_clear()
    yield
    for made in (settings.read, store._s3):
        made.cache_clear()


@pytest.mark.usefixtures("ministack", "on_aws")
@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1"])
def test_on_aws_it_is_the_buckets_own_host_in_its_region_and_host_alone_is_signed(
    monkeypatch: pytest.MonkeyPatch, region: str
) -> None:
    monkeypatch.setenv("AWS_REGION", region)
    client = store.s3()
    client.meta.events.register("before-send.s3.PutObject", _stored)
    url = urlsplit(Results(lambda: client, "emblet-results").put(BODY, "acct_test", "5f").url)
    assert (url.scheme, url.netloc) == ("https", f"emblet-results.s3.{region}.amazonaws.com")
    signed = parse_qs(url.query)
    assert signed["X-Amz-SignedHeaders"] == ["host"]
    assert signed["X-Amz-Expires"] == ["900"]
    assert signed["X-Amz-Security-Token"] == ["of-the-role"]


def _stored(**_: Any) -> Any:
    """AWS's answer to a put, which no test can get."""
    answer = AWSResponse("", 200, HTTPHeaders(), None)
    answer._content = b""  # type: ignore[attr-defined]
    return answer
