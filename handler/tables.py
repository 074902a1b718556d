"""The tables of template.yaml, and what batches need beside them, made in a stand-in for AWS: on one machine, for
`make run`."""

from pathlib import Path
from typing import Any

_BATCHES = [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".jsonl"}]
_TEMPLATE = Path(__file__).resolve().parent.parent / "template.yaml"


def make() -> None:
    """Each under its name in the template, as far as an emulator knows them."""
    import boto3

    client = boto3.client("dynamodb")  # with more patience than a request has
    for name, resource in _template()["Resources"].items():
        if resource["Type"] == "AWS::DynamoDB::Table":
            properties = resource["Properties"]
            shape = {part: properties[part] for part in ("BillingMode", "AttributeDefinitions", "KeySchema")}
            if "StreamSpecification" in properties:
                shape["StreamSpecification"] = properties["StreamSpecification"] | {"StreamEnabled": True}
            client.create_table(TableName=name, **shape)


def make_jobs() -> dict[str, str]:
    """A bucket and queues for files and batches; the settings that name them."""
    import boto3

    boto3.client("s3").create_bucket(Bucket="results")
    queues: Any = boto3.client("sqs")
    names = ("Plans", "Shards", "Objects")
    urls = {f"{name.upper()}_QUEUE": queues.create_queue(QueueName=name)["QueueUrl"] for name in names}
    arn = queues.get_queue_attributes(QueueUrl=urls["OBJECTS_QUEUE"], AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    told: Any = {"QueueArn": arn, "Events": ["s3:ObjectCreated:*"], "Filter": {"Key": {"FilterRules": _BATCHES}}}
    boto3.client("s3").put_bucket_notification_configuration(
        Bucket="results", NotificationConfiguration={"QueueConfigurations": [told]}
    )
    return {"RESULTS_BUCKET": "results", **urls}


def _template() -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """CloudFormation's short forms (!Ref, !Sub, ...) read as nothing: no table's keys have any."""

    Loader.add_multi_constructor("!", lambda *_: None)
    with _TEMPLATE.open(encoding="utf-8") as file:
        template: dict[str, Any] = yaml.load(file, Loader)  # noqa: S506  (a SafeLoader)
    return template
