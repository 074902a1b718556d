"""What `sam deploy` leaves behind, on MiniStack: an SDK calls the stack's URL, the image answers, the ledger knows."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from handler import store
from handler.billing import records as billing
from handler.billing.buckets import Bucket
from handler.billing.ledger import Record, Work
from handler.billing.rollups import Rollups
from tests.deploy.conftest import MODEL, REPOSITORY
from tests.stack import cloudformation
from tests.stack.cloudformation import Stack
from tests.stack.emulator import Emulator
from tests.stack.ministack import MiniStack


def sdk(stack: Stack, endpoint: str, key: str) -> openai.OpenAI:
    """The SDK as a developer sets it up with the stack's Url, whose name MiniStack serves under its own address."""
    url = urlsplit(stack.outputs["Url"])
    return openai.OpenAI(
        base_url=f"{endpoint}{url.path}v1", api_key=key, max_retries=0, default_headers={"host": url.netloc}
    )


def records(stack: Stack, endpoint: str, account: str) -> list[dict[str, Any]]:
    """The account's records in the stack's ledger."""
    pages = (
        cloudformation.client("dynamodb", endpoint)
        .get_paginator("scan")
        .paginate(TableName=stack.outputs["UsageTable"])
    )
    return [item for page in pages for item in page["Items"] if item["pk"]["S"].startswith(f"{account}#")]


def test_an_sdk_gets_an_embedding_through_the_deployed_url_and_the_ledger_has_one_record_of_it(
    function: Emulator, stack: Stack, ministack: MiniStack, make_key: Callable[[str], str]
) -> None:
    client = sdk(stack, ministack.endpoint, make_key("acct_stack"))

    answer = client.embeddings.create(model=MODEL, input="the quick brown fox")

    [embedding] = [each.embedding for each in answer.data]
    assert len(embedding) == 384
    assert sum(number * number for number in embedding) == pytest.approx(1, abs=1e-5)
    [record] = records(stack, ministack.endpoint, "acct_stack")
    assert int(record["tokens"]["N"]) == answer.usage.prompt_tokens > 0


def test_a_request_becomes_usage_of_its_minute_hour_and_day_through_the_ledgers_own_stream(
    function: Emulator, ledger: Emulator, stack: Stack, ministack: MiniStack, make_key: Callable[[str], str]
) -> None:
    answer = sdk(stack, ministack.endpoint, make_key("acct_rolled")).embeddings.create(
        model=MODEL, input=["the quick brown fox", "jumps over"]
    )

    rollups = Rollups(store.dynamodb, stack.outputs["RollupsTable"])
    now, end, days = int(time.time()), time.monotonic() + 60, list[Bucket]()
    while not days and time.monotonic() < end:
        time.sleep(0.2)
        days = list(rollups.read("acct_rolled", "1d", now - 86400, now + 86400))
    [day] = days
    [hour], [minute] = (list(rollups.read("acct_rolled", each, now - 86400, now + 86400)) for each in ("1h", "1m"))
    assert minute.groups == hour.groups == day.groups
    assert (day.n, day.total.tokens, day.total.requests) == (1, answer.usage.prompt_tokens, 1)
    assert day.total.cost == answer.usage.prompt_tokens * Decimal("0.01") / 1_000_000
    assert "acct_rolled" in rollups.accounts()


def test_a_record_that_waits_in_the_deployed_queue_is_written_through_its_mapping(
    ledger: Emulator, stack: Stack, ministack: MiniStack
) -> None:
    """MiniStack polls the queue as Lambda does, and deletes what the function is done with; what it is not done with
    comes again and is not seen here, for the queue's eighteen minutes."""
    work = Work("7" * 32, "3" * 16, datetime.now(UTC), "http")
    waited = Record(work, "acct_waited", "key_waited", MODEL, 7, 1, Decimal("0.01"))
    queues, url = cloudformation.client("sqs", ministack.endpoint), stack.outputs["LedgerQueue"]
    queues.send_message(QueueUrl=url, MessageBody=billing.dumps(waited))

    end, found = time.monotonic() + 60, list[dict[str, Any]]()
    while not found and time.monotonic() < end:
        time.sleep(0.2)
        found = records(stack, ministack.endpoint, "acct_waited")

    assert found == [waited.item()]
    counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    while time.monotonic() < end:
        left = queues.get_queue_attributes(QueueUrl=url, AttributeNames=counts)["Attributes"]
        if {*left.values()} == {"0"}:
            break
        time.sleep(0.2)
    assert {*left.values()} == {"0"}, "the mapping has deleted the message"


def test_a_batch_goes_through_the_deployed_queues_from_an_sdks_file_to_its_output(
    function: Emulator,
    ledger: Emulator,
    work: Emulator,
    stack: Stack,
    ministack: MiniStack,
    make_key: Callable[[str], str],
) -> None:
    """MiniStack polls both queues for their mappings, as Lambda does, and ends what is done with."""
    client = sdk(stack, ministack.endpoint, make_key("acct_batched"))
    lines = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/embeddings", "body": {"model": MODEL, "input": f"text {n}"}}
        for n in range(20)
    ]
    content = "\n".join(json.dumps(each) for each in lines).encode()

    file = client.files.create(file=("texts.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    end = time.monotonic() + 60
    while batch.status not in ("completed", "failed") and time.monotonic() < end:
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)

    assert (batch.status, batch.errors, batch.output_file_id is not None) == ("completed", None, True), work.log
    output = [json.loads(each) for each in client.files.content(str(batch.output_file_id)).text.splitlines()]
    assert [each["custom_id"] for each in output] == [str(n) for n in range(20)]
    [record] = records(stack, ministack.endpoint, "acct_batched")
    tokens = sum(each["response"]["body"]["usage"]["total_tokens"] for each in output)
    assert (int(record["tokens"]["N"]), int(record["requests"]["N"])) == (tokens, 20)


def test_the_hourly_event_reaches_the_function_that_keeps_the_books(
    ledger: Emulator, stack: Stack, ministack: MiniStack
) -> None:
    answer = cloudformation.client("lambda", ministack.endpoint).invoke(
        FunctionName=stack.resources["Ledger"],
        Qualifier="live",
        Payload=(REPOSITORY / "events/schedule.json").read_bytes(),
    )

    assert (answer.get("FunctionError"), json.loads(answer["Payload"].read())) == (None, None)


def test_a_key_that_is_not_in_the_stacks_table_is_refused(
    function: Emulator, stack: Stack, ministack: MiniStack, make_key: Callable[[str], str]
) -> None:
    key = make_key("acct_refused")
    client = sdk(stack, ministack.endpoint, key[:-1] + ("a" if key[-1] != "a" else "b"))

    with pytest.raises(openai.AuthenticationError):
        client.embeddings.create(model=MODEL, input="the quick brown fox")

    assert records(stack, ministack.endpoint, "acct_refused") == []


def test_the_url_is_the_aliass(stack: Stack, ministack: MiniStack) -> None:
    functions = cloudformation.client("lambda", ministack.endpoint)

    url = functions.get_function_url_config(FunctionName=stack.outputs["FunctionName"], Qualifier="live")

    assert url["FunctionUrl"] == stack.outputs["Url"]
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        functions.get_function_url_config(FunctionName=stack.outputs["FunctionName"])


@pytest.mark.parametrize("protected", [True, False])
def test_the_tables_are_protected_as_the_parameter_says(
    stack: Stack, address: Path, ministack: MiniStack, *, protected: bool
) -> None:
    if not protected:
        parameters = {"DeletionProtection": "false"}
        template = REPOSITORY / "template.yaml"
        stack = cloudformation.deploy(template, ministack.endpoint, forward_to=address, parameters=parameters)
    tables = cloudformation.client("dynamodb", ministack.endpoint)

    for output in ("KeysTable", "UsageTable", "LimitsTable", "EntriesTable", "RollupsTable"):
        table = tables.describe_table(TableName=stack.outputs[output])["Table"]
        assert table["DeletionProtectionEnabled"] is protected
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


def test_with_gpus_the_url_and_the_queues_lead_to_their_functions(address: Path, ministack: MiniStack) -> None:
    """As far as MiniStack knows them: as ordinary functions, without what makes them Managed Instances'; and it has no
    mappings that are disabled, as Work's are (test_gpu.py)."""
    network = {"ManagedSubnetIds": "subnet-0123456789abcdef0", "ManagedSecurityGroupIds": "sg-0123456789abcdef0"}
    parameters = {"DeployGpu": "true", "DeployGpuWork": "true", "GpuImage": "emblet:gpu", **network}
    stack = cloudformation.deploy(
        REPOSITORY / "template.yaml", ministack.endpoint, forward_to=address, parameters=parameters
    )
    functions = cloudformation.client("lambda", ministack.endpoint)

    def environment(name: str) -> dict[str, str]:
        found = functions.get_function_configuration(FunctionName=stack.resources[name], Qualifier="live")
        return dict(found["Environment"]["Variables"])

    found = functions.list_event_source_mappings()["EventSourceMappings"]
    ours = f":function:{stack.resources['WorkGpu']}:live"
    taken = {each["EventSourceArn"].rpartition(":")[2] for each in found if each["FunctionArn"].endswith(ours)}
    url = functions.get_function_url_config(FunctionName=stack.resources["EmbedGpu"], Qualifier="live")
    assert url["FunctionUrl"] == stack.outputs["GpuUrl"] != stack.outputs["Url"]
    promised = {"REQUIRE_GPU": "1", "MAX_RUN_SECONDS": "30"}
    assert environment("EmbedGpu") == environment("Embed") | promised | {"MAX_QUEUE_REQUESTS": "128"}
    assert environment("WorkGpu") == environment("Work") | promised
    assert taken == {stack.resources[each].rpartition("/")[2] for each in ("Shards", "Messages")}


def test_two_stacks_stand_side_by_side(stack: Stack, address: Path, ministack: MiniStack) -> None:
    other = cloudformation.deploy(REPOSITORY / "template.yaml", ministack.endpoint, forward_to=address)

    assert not set(stack.resources.values()) & set(other.resources.values())
