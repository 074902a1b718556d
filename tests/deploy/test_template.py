"""What `sam deploy` makes of template.yaml, read from its expansion: the linter sees little of SAM's own types."""

import copy
import dataclasses
import re
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from handler import logs
from handler.batches import careful
from handler.billing import corrections, outbox
from handler.events import deadline, stream
from handler.results import PREFIX
from handler.settings import Settings
from model_layer.catalog import MODELS
from tests.batches.post import Context
from tests.stack import cloudformation
from tests.stack.cloudformation import Template

PATH = Path(__file__).parents[2] / "template.yaml"
ORT = {"ORT_DISABLE_TELEMETRY"}


@pytest.fixture(scope="module")
def source() -> Template:
    return cloudformation.load(PATH)


@pytest.fixture(scope="module")
def resources(source: Template) -> dict[str, Any]:
    """The stack's resources, with the parameters' defaults."""
    return cloudformation.settle(cloudformation.expand(source))


def settled(source: Template, **parameters: str) -> dict[str, Any]:
    return cloudformation.settle(cloudformation.expand(source, parameters), parameters)


def changed(source: Template, path: str, value: Any) -> Template:
    """The template with another value at a path below its resources."""
    template = copy.deepcopy(source)
    *parents, last = path.split(".")
    node = template["Resources"]
    for each in parents:
        node = node[each]
    node[last] = value
    return template


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def of_type(resources: dict[str, Any], kind: str) -> dict[str, Any]:
    found = {name: each for name, each in resources.items() if each["Type"] == kind}
    assert found, f"no {kind} in the template"
    return found


def test_the_expanded_template_has_no_lint_findings(source: Template) -> None:
    assert cloudformation.lint(cloudformation.expand(source)) == []


@pytest.mark.parametrize(
    ("path", "value", "finding"),
    [
        ("Embed.Properties.Environment.Variables.KEYS_TABLE", {"Ref": "Kyes"}, "'Kyes' is not one of"),
        ("Embed.Properties.Role", {"Fn::GetAtt": ["EmbedRole", "Arm"]}, "'Arm' is not one of"),
        ("Embed.Properties.Timeout", "a minute", "'a minute' is not of type 'integer'"),
        ("Ledger.Properties.Environment.Variables.BATCH_MAX_INPUTS", "", "Parameter BatchMaxInputs not used"),
        ("Embed.Properties.LoggingConfig.LogFormat", "Json", "'Json' is not one of"),
        ("Embed.Properties.FunctionUrlConfig.InvokeMode", "BUFERED", "'BUFERED' is not one of"),
        ("Usage.Properties.BillingMode", "PAY_PER_REQEST", "'PAY_PER_REQEST' is not one of"),
        ("Usage.Properties.DeletionProtection", True, "'DeletionProtection' was unexpected"),
        ("Usage.DeletionPolicy", "Retian", "'Retian' is not one of"),
        ("EmbedLogs.Properties.RetentionInDays", 31, "31 is not one of"),
    ],
)
def test_the_lint_sees_a_mistake(source: Template, path: str, value: Any, finding: str) -> None:
    findings = cloudformation.lint(cloudformation.expand(changed(source, path, value)))

    assert any(finding in each for each in findings), findings


@pytest.mark.parametrize(
    ("mapping", "finding"),
    [
        ({"BatchSize": 10_000, "FunctionResponseTypes": ["ReportBatchItemFailures"]}, None),
        ({"BatchSize": 10_001}, "10001 is greater than the maximum of 10000"),
        (
            {"BatchSize": 10, "FunctionResponseTypes": ["ReportBatchItemFailure"]},
            "'ReportBatchItemFailure' is not one of",
        ),
    ],
)
def test_the_lint_sees_a_mistake_in_an_event_source(source: Template, mapping: Template, finding: str | None) -> None:
    queue = {"Type": "SQS", "Properties": {"Queue": "arn:aws:sqs:us-east-1:123456789012:q", **mapping}}

    findings = cloudformation.lint(
        cloudformation.expand(changed(source, "Embed.Properties.Events", {"Messages": queue}))
    )

    assert any(finding in each for each in findings) if finding else findings == []


@pytest.fixture(scope="module")
def managed(source: Template) -> dict[str, Any]:
    """The stack's resources, with Managed Instances."""
    network = {"ManagedSubnetIds": "subnet-0123456789abcdef0", "ManagedSecurityGroupIds": "sg-0123456789abcdef0"}
    return settled(source, DeployManaged="true", **network)


def test_managed_instances_are_an_addition_of_those_who_want_them(
    resources: dict[str, Any], managed: dict[str, Any]
) -> None:
    added = managed.keys() - resources.keys()

    assert resources.keys() < managed.keys()
    assert added == {name for name in managed if "Managed" in name}
    assert {"EmbedManaged", "EmbedManagedUrl", "EmbedManagedAliaslive", "ManagedCapacity"} < added
    assert {managed[name]["Condition"] for name in added} == {"ManagedIsDeployed"}


def test_on_managed_instances_the_services_own_refusal_comes_before_lambdas(managed: dict[str, Any]) -> None:
    function = managed["EmbedManaged"]["Properties"]
    provider = function["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"]

    assert provider["CapacityProviderArn"] == {"Fn::GetAtt": ["ManagedCapacity", "Arn"]}
    assert (
        int(function["Environment"]["Variables"]["MAX_QUEUE_REQUESTS"])
        < (provider["PerExecutionEnvironmentMaxConcurrency"])
    )
    assert function["MemorySize"] % (1024 * provider["ExecutionEnvironmentMemoryGiBPerVCpu"]) == 0


def test_on_managed_instances_the_function_is_the_same_within_a_cost_that_is_capped(managed: dict[str, Any]) -> None:
    one, other = (managed[name]["Properties"] for name in ("Embed", "EmbedManaged"))
    own = {"CapacityProviderConfig", "Environment", "FunctionScalingConfig", "MemorySize"}

    assert other["Environment"]["Variables"] == one["Environment"]["Variables"] | {"MAX_QUEUE_REQUESTS": "64"}
    assert {name: other[name] for name in other.keys() - own} == {name: one[name] for name in other.keys() - own}
    assert managed["ManagedCapacity"]["Properties"]["CapacityProviderScalingConfig"]["MaxVCpuCount"] == 16
    [version] = [each for name, each in managed.items() if name.startswith("EmbedManagedVersion")]
    assert version["Properties"]["FunctionScalingConfig"] == {
        "MinExecutionEnvironments": 1,
        "MaxExecutionEnvironments": 3,
    }
    [dimension] = managed["ManagedLostRecords"]["Properties"]["Dimensions"]
    assert dimension == {"Name": "FunctionName", "Value": {"Ref": "EmbedManaged"}}


TAKES = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
JOINS = ("GetObject", "PutObject", "AbortMultipartUpload")
RIGHTS = {
    "Embed": {
        ("s3:PutObject", "${Results.Arn}/answers/*"),
        ("s3:GetObject", "${Results.Arn}/answers/*"),
        *(
            (f"dynamodb:{action}", "Jobs", "Arn")
            for action in ("GetItem", "Query", "PutItem", "UpdateItem", "DeleteItem")
        ),
        *((f"s3:{action}Object", "${Results.Arn}/files/*") for action in ("Put", "Get", "Delete")),
        *((f"s3:{action}Object", "${Results.Arn}/out/*") for action in ("Get", "Delete")),
        ("s3:ListBucket", "Results", "Arn"),
        ("sqs:SendMessage", "Plans", "Arn"),
        ("dynamodb:GetItem", "Keys", "Arn"),
        ("dynamodb:PutItem", "Usage", "Arn"),
        ("dynamodb:GetItem", "Usage", "Arn"),
        ("dynamodb:Query", "Usage", "Arn"),
        ("dynamodb:Query", "Rollups", "Arn"),
        ("dynamodb:UpdateItem", "Limits", "Arn"),
        ("dynamodb:GetItem", "Limits", "Arn"),
        ("dynamodb:Query", "Prices", "Arn"),
        ("dynamodb:PutItem", "Entries", "Arn"),
        ("sqs:SendMessage", "LedgerQueue", "Arn"),
        ("logs:CreateLogStream", "EmbedLogs", "Arn"),
        ("logs:PutLogEvents", "EmbedLogs", "Arn"),
    },
    "Work": {
        ("dynamodb:GetItem", "Keys", "Arn"),
        ("dynamodb:Scan", "Keys", "Arn"),
        ("dynamodb:GetItem", "Entries", "Arn"),
        ("dynamodb:PutItem", "Entries", "Arn"),
        *((f"sqs:{action}", "Messages", "Arn") for action in TAKES),
        ("sqs:SendMessage", "MessagesDeadLetters", "Arn"),
        ("s3:PutObject", "${Results.Arn}/out/*"),
        ("dynamodb:PutItem", "Usage", "Arn"),
        ("dynamodb:GetItem", "Usage", "Arn"),
        ("dynamodb:Query", "Usage", "Arn"),
        ("dynamodb:UpdateItem", "Limits", "Arn"),
        ("dynamodb:GetItem", "Limits", "Arn"),
        ("dynamodb:Query", "Prices", "Arn"),
        ("sqs:SendMessage", "LedgerQueue", "Arn"),
        *((f"dynamodb:{action}", "Jobs", "Arn") for action in ("GetItem", "PutItem", "UpdateItem")),
        *((f"sqs:{action}", "Shards", "Arn") for action in TAKES),
        ("sqs:SendMessage", "Shards", "Arn"),
        ("sqs:SendMessage", "Plans", "Arn"),
        ("s3:GetObject", "${Results.Arn}/files/*"),
        ("s3:GetObject", "${Results.Arn}/in/*"),
        ("s3:GetObject", "${Results.Arn}/work/*"),
        ("s3:PutObject", "${Results.Arn}/work/*"),
        ("s3:ListBucket", "Results", "Arn"),
        ("logs:CreateLogStream", "WorkLogs", "Arn"),
        ("logs:PutLogEvents", "WorkLogs", "Arn"),
    },
    "Ledger": {
        *(
            (f"dynamodb:{action}", "Jobs", "Arn")
            for action in ("GetItem", "Query", "PutItem", "UpdateItem", "DeleteItem")
        ),
        *((f"sqs:{action}", "Plans", "Arn") for action in TAKES),
        *((f"sqs:{action}", "Objects", "Arn") for action in TAKES),
        ("sqs:SendMessage", "Plans", "Arn"),
        ("sqs:SendMessage", "Shards", "Arn"),
        ("s3:GetObject", "${Results.Arn}/files/*"),
        ("s3:GetObject", "${Results.Arn}/in/*"),
        *((f"s3:{action}", "${Results.Arn}/work/*") for action in JOINS),
        *((f"s3:{action}", "${Results.Arn}/out/*") for action in JOINS),
        ("s3:ListBucket", "Results", "Arn"),
        ("dynamodb:DescribeStream", "Usage", "StreamArn"),
        ("dynamodb:GetShardIterator", "Usage", "StreamArn"),
        ("dynamodb:GetRecords", "Usage", "StreamArn"),
        ("dynamodb:ListStreams", "*"),
        ("dynamodb:Query", "Usage", "Arn"),
        ("dynamodb:GetItem", "Usage", "Arn"),
        ("dynamodb:PutItem", "Usage", "Arn"),
        ("dynamodb:PutItem", "Entries", "Arn"),
        ("sqs:ReceiveMessage", "LedgerQueue", "Arn"),
        ("sqs:DeleteMessage", "LedgerQueue", "Arn"),
        ("sqs:GetQueueAttributes", "LedgerQueue", "Arn"),
        ("sqs:GetQueueAttributes", "LedgerDeadLetters", "Arn"),
        ("dynamodb:Query", "Rollups", "Arn"),
        ("dynamodb:PutItem", "Rollups", "Arn"),
        ("dynamodb:UpdateItem", "Rollups", "Arn"),
        ("dynamodb:Scan", "Limits", "Arn"),
        ("dynamodb:UpdateItem", "Limits", "Arn"),
        ("sqs:SendMessage", "LedgerSkipped", "Arn"),
        ("logs:CreateLogStream", "LedgerLogs", "Arn"),
        ("logs:PutLogEvents", "LedgerLogs", "Arn"),
    },
}


def target(resource: Any) -> tuple[str, ...]:
    match resource:
        case {"Fn::GetAtt": [str(name), str(attribute)]}:
            return name, attribute
        case {"Fn::Sub": str(text)}:
            return (text,)
    return (str(resource),)


def test_every_function_has_a_role_of_its_own(resources: dict[str, Any]) -> None:
    roles = {f"{name}Role" for name in of_type(resources, "AWS::Lambda::Function")}

    assert set(of_type(resources, "AWS::IAM::Role")) == roles | {"AdminRole"}
    assert roles == {f"{name}Role" for name in RIGHTS}
    assert {name for name, each in resources.items() if "Policy" in each["Type"]} == {"ResultsPolicy", "ObjectsPolicy"}


@pytest.mark.parametrize("function", RIGHTS)
def test_a_function_has_exactly_the_rights_it_uses(resources: dict[str, Any], function: str) -> None:
    role = resources[f"{function}Role"]["Properties"]
    statements = [each for policy in role["Policies"] for each in policy["PolicyDocument"]["Statement"]]

    assert resources[function]["Properties"]["Role"] == {"Fn::GetAtt": [f"{function}Role", "Arn"]}
    assert "ManagedPolicyArns" not in role
    assert {each["Effect"] for each in statements} == {"Allow"}
    found = {
        (action, *target(resource))
        for each in statements
        for action in listed(each["Action"])
        for resource in (each["Resource"] if isinstance(each["Resource"], list) else [each["Resource"]])
    }
    assert found == RIGHTS[function]


def test_no_role_but_the_operators_writes_keys_or_prices(resources: dict[str, Any]) -> None:
    """Whatever stands for a write: an action by name, or a pattern, on the table by name, or a pattern."""
    writes = (
        "PutItem",
        "UpdateItem",
        "DeleteItem",
        "BatchWriteItem",
        "PartiQLInsert",
        "PartiQLUpdate",
        "PartiQLDelete",
    )
    tables = {("Keys", "Arn"), ("Prices", "Arn")}

    def writing(role: dict[str, Any]) -> set[tuple[str, ...]]:
        return {
            resource
            for policy in role["Properties"]["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
            for action in listed(statement["Action"])
            if any(fnmatch(f"dynamodb:{write}".lower(), action.lower()) for write in writes)
            for each in (statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]])
            for resource in [target(each)]
            if resource in tables or len(resource) == 1
        }

    found = {name: writing(role) for name, role in of_type(resources, "AWS::IAM::Role").items()}
    assert found == {"EmbedRole": set(), "WorkRole": set(), "LedgerRole": set(), "AdminRole": tables}


@pytest.mark.parametrize("function", RIGHTS)
def test_only_lambda_takes_the_role(resources: dict[str, Any], function: str) -> None:
    [statement] = resources[f"{function}Role"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]

    assert (statement["Action"], statement["Principal"]) == ("sts:AssumeRole", {"Service": "lambda.amazonaws.com"})


def test_principals_of_the_stacks_own_account_take_the_operators_role(source: Template) -> None:
    [statement] = source["Resources"]["AdminRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]

    assert statement == {
        "Effect": "Allow",
        "Action": "sts:AssumeRole",
        "Principal": {"AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"}},
    }


def test_the_url_is_the_aliass_and_everyone_may_call_it(resources: dict[str, Any]) -> None:
    aliases = of_type(resources, "AWS::Lambda::Alias")
    [alias] = [name for name, each in aliases.items() if each["Properties"]["FunctionName"] == {"Ref": "Embed"}]
    [url] = of_type(resources, "AWS::Lambda::Url").values()
    permissions = [
        each["Properties"]
        for each in of_type(resources, "AWS::Lambda::Permission").values()
        if each["Properties"]["Principal"] == "*"
    ]

    assert {each["Properties"]["Name"] for each in aliases.values()} == {"live"}
    assert url["Properties"] == {"TargetFunctionArn": {"Ref": alias}, "AuthType": "NONE", "InvokeMode": "BUFFERED"}
    # Lambda asks for both rights of who calls a function URL.
    assert {(each["Action"], each["FunctionName"]["Ref"], each["Principal"]) for each in permissions} == {
        ("lambda:InvokeFunctionUrl", alias, "*"),
        ("lambda:InvokeFunction", alias, "*"),
    }
    assert all(
        each.get("FunctionUrlAuthType") == "NONE" or each.get("InvokedViaFunctionUrl") is True for each in permissions
    )


def test_the_alias_moves_with_a_new_image_and_with_a_changed_property(source: Template) -> None:
    def version(template: Template) -> str:
        versions = of_type(cloudformation.expand(template)["Resources"], "AWS::Lambda::Version")
        [name] = [name for name in versions if name.startswith("EmbedVersion")]
        return name

    versions = {
        version(source),
        version(changed(source, "Embed.Properties.ImageUri", "built-by-sam:2")),
        version(changed(source, "Embed.Properties.LoggingConfig.SystemLogLevel", "WARN")),
    }

    assert len(versions) == 3


def test_every_table_is_on_demand_encrypted_recoverable_and_outlives_the_stack(resources: dict[str, Any]) -> None:
    tables = of_type(resources, "AWS::DynamoDB::Table")

    assert set(tables) == {"Keys", "Usage", "Limits", "Prices", "Entries", "Rollups", "Jobs"}
    for table in tables.values():
        properties = table["Properties"]
        assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == ("Retain", "Retain")
        assert properties["BillingMode"] == "PAY_PER_REQUEST"
        assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


@pytest.mark.parametrize(("asked", "protected"), [({}, True), ({"DeletionProtection": "false"}, False)])
def test_the_tables_are_protected_from_deletion_unless_told_otherwise(
    source: Template, asked: dict[str, str], protected: bool
) -> None:
    tables = of_type(settled(source, **asked), "AWS::DynamoDB::Table")

    assert {each["Properties"]["DeletionProtectionEnabled"] for each in tables.values()} == {protected}


def test_entries_and_jobs_alone_are_forgotten(resources: dict[str, Any]) -> None:
    forgetting = {
        name: table["Properties"]["TimeToLiveSpecification"]
        for name, table in of_type(resources, "AWS::DynamoDB::Table").items()
        if "TimeToLiveSpecification" in table["Properties"]
    }

    assert forgetting == {name: {"AttributeName": "ttl", "Enabled": True} for name in ("Entries", "Jobs")}


def test_a_record_that_waits_is_kept_as_long_as_a_queue_can_and_outlives_the_stack(resources: dict[str, Any]) -> None:
    queues = of_type(resources, "AWS::SQS::Queue")

    for queue in (queues["LedgerQueue"], queues["LedgerDeadLetters"]):
        assert queue["Properties"]["MessageRetentionPeriod"] == 14 * 86400
        assert (queue["DeletionPolicy"], queue["UpdateReplacePolicy"]) == ("Retain", "Retain")
    redrive = queues["LedgerQueue"]["Properties"]["RedrivePolicy"]
    assert redrive["deadLetterTargetArn"] == {"Fn::GetAtt": ["LedgerDeadLetters", "Arn"]}
    visibility = queues["LedgerQueue"]["Properties"]["VisibilityTimeout"]
    # An hour without DynamoDB, at the least, is no reason to call a message dead.
    assert redrive["maxReceiveCount"] * visibility > 3600
    # Less than the function's timeout would be refused.
    assert visibility >= resources["Ledger"]["Properties"]["Timeout"]


def test_the_ledger_queue_is_drained_by_the_function_that_keeps_the_books(resources: dict[str, Any]) -> None:
    [mapping] = mappings(resources, "LedgerQueue")

    assert mapping["FunctionName"] == {"Ref": "LedgerAliaslive"}
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"], "or one bad message brings all back"
    assert mapping["BatchSize"] <= 10, "more needs a batching window"
    variables = resources["Ledger"]["Properties"]["Environment"]["Variables"]
    assert (variables["USAGE_TABLE"], variables["ENTRIES_TABLE"]) == ({"Ref": "Usage"}, {"Ref": "Entries"})


@pytest.mark.parametrize(("queue", "function"), [("Plans", "Ledger"), ("Shards", "Work")])
def test_a_queue_of_batches_is_taken_message_by_message_and_gives_up_with_an_alarm(
    resources: dict[str, Any], queue: str, function: str
) -> None:
    [mapping] = mappings(resources, queue)
    properties = resources[queue]["Properties"]

    assert mapping["FunctionName"] == {"Ref": f"{function}Aliaslive"}
    assert (mapping["BatchSize"], mapping["FunctionResponseTypes"]) == (1, ["ReportBatchItemFailures"])
    assert properties["VisibilityTimeout"] >= resources[function]["Properties"]["Timeout"], "else AWS refuses it"
    redrive = properties["RedrivePolicy"]
    assert redrive["deadLetterTargetArn"] == {"Fn::GetAtt": ["BatchDeadLetters", "Arn"]}
    assert redrive["maxReceiveCount"] >= 5
    assert properties["SqsManagedSseEnabled"] is True
    alarm = resources["BatchesHaveDeadLetters"]["Properties"]
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": ["BatchDeadLetters", "QueueName"]}}]
    variables = resources[function]["Properties"]["Environment"]["Variables"]
    assert variables[f"{queue.upper()}_QUEUE"] == {"Ref": queue}


@pytest.mark.parametrize("function", ["Work", "WorkGpu"])
def test_a_shard_is_there_again_once_its_execution_is_known_to_have_ended(
    source: Template, resources: dict[str, Any], function: str
) -> None:
    """Before that, the line that it is at is none that an execution has died of."""
    timeout = source["Resources"][function]["Properties"]["Timeout"]
    until = deadline.of(Context(timeout))
    assert until is not None
    ended = until - time.monotonic() + careful._ENDS_S
    assert ended + 60 < resources["Shards"]["Properties"]["VisibilityTimeout"], "a minute is left to deliver it"


def test_messages_are_taken_together_within_a_window_and_the_dead_raise_an_alarm(resources: dict[str, Any]) -> None:
    [mapping] = mappings(resources, "Messages")
    assert mapping["FunctionName"] == {"Ref": "WorkAliaslive"}
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BatchSize"] <= 10 or mapping["MaximumBatchingWindowInSeconds"] >= 1, "else AWS refuses it"
    properties = resources["Messages"]["Properties"]
    assert properties["MaximumMessageSize"] == 1 << 20
    assert resources["MessagesDeadLetters"]["Properties"]["MaximumMessageSize"] == 1 << 20
    assert properties["VisibilityTimeout"] >= resources["Work"]["Properties"]["Timeout"]
    assert properties["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": ["MessagesDeadLetters", "Arn"]}
    waits = properties["RedrivePolicy"]["maxReceiveCount"] * properties["VisibilityTimeout"]
    assert 86400 <= waits <= properties["MessageRetentionPeriod"], "a day of its key's minutes, or of fuller queues"
    variables = resources["Work"]["Properties"]["Environment"]["Variables"]
    assert variables["DEAD_MESSAGES_QUEUE"] == {"Ref": "MessagesDeadLetters"}
    alarm = resources["MessagesHaveDeadLetters"]["Properties"]
    assert alarm["Dimensions"][0]["Value"] == {"Fn::GetAtt": ["MessagesDeadLetters", "QueueName"]}


def test_the_bucket_tells_of_what_is_put_where_batches_come_from_and_nowhere_else(resources: dict[str, Any]) -> None:
    bucket, policy = resources["Results"], resources["ObjectsPolicy"]["Properties"]
    [notification] = bucket["Properties"]["NotificationConfiguration"]["QueueConfigurations"]
    rules = {rule["Name"]: rule["Value"] for rule in notification["Filter"]["S3Key"]["Rules"]}
    assert rules == {"prefix": "in/", "suffix": ".jsonl"}
    assert notification["Queue"] == {"Fn::GetAtt": ["Objects", "Arn"]}
    assert bucket["DependsOn"] == "ObjectsPolicy", "S3 asks the queue whether it may, when it is told to"
    [statement] = policy["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    [mapping] = mappings(resources, "Objects")
    assert mapping["FunctionName"] == {"Ref": "LedgerAliaslive"}
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert resources["Objects"]["Properties"]["VisibilityTimeout"] >= resources["Ledger"]["Properties"]["Timeout"]


def test_the_function_that_executes_batches_is_capped(source: Template) -> None:
    [mapping] = mappings(settled(source, WorkConcurrency="7"), "Shards")
    assert mapping["ScalingConfig"] == {"MaximumConcurrency": "7"}


def mappings(resources: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """The event source mappings of a queue or of a table's stream."""
    found = [each["Properties"] for each in of_type(resources, "AWS::Lambda::EventSourceMapping").values()]
    return [each for each in found if each["EventSourceArn"]["Fn::GetAtt"][0] == source]


def test_the_metric_of_the_log_line_is_the_one_that_alarms(resources: dict[str, Any]) -> None:
    alarm = resources["LedgerLostRecords"]["Properties"]

    assert (alarm["Namespace"], alarm["MetricName"]) == (logs.NAMESPACE, outbox.METRIC)
    assert alarm["Dimensions"] == [{"Name": "FunctionName", "Value": {"Ref": "Embed"}}]
    assert (alarm["Statistic"], alarm["Threshold"], alarm["ComparisonOperator"]) == ("Sum", 0, "GreaterThanThreshold")


@pytest.mark.parametrize(
    ("alarm", "metric", "queue"),
    [
        ("LedgerIsLate", "ApproximateAgeOfOldestMessage", "LedgerQueue"),
        ("LedgerHasDeadLetters", "ApproximateNumberOfMessagesVisible", "LedgerDeadLetters"),
    ],
)
def test_a_queue_that_is_not_emptied_raises_an_alarm(
    resources: dict[str, Any], alarm: str, metric: str, queue: str
) -> None:
    properties = resources[alarm]["Properties"]

    assert (properties["Namespace"], properties["MetricName"]) == ("AWS/SQS", metric)
    assert properties["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": [queue, "QueueName"]}}]
    assert properties["ComparisonOperator"] == "GreaterThanThreshold"


def test_alarms_go_to_the_topic_that_is_named(source: Template) -> None:
    topic = "arn:aws:sns:us-east-1:123456789012:operators"

    def actions(resources: dict[str, Any]) -> set[str]:
        alarms = of_type(resources, "AWS::CloudWatch::Alarm").values()
        return {each for alarm in alarms for each in alarm["Properties"].get("AlarmActions", ["nowhere"])}

    assert actions(settled(source, AlarmTopic=topic)) == {topic}
    assert actions(settled(source)) == {"nowhere"}


def test_the_bucket_of_large_answers_is_private_and_forgets_them(resources: dict[str, Any]) -> None:
    [(name, bucket)] = of_type(resources, "AWS::S3::Bucket").items()
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    rules = {rule["Prefix"]: rule for rule in bucket["Properties"]["LifecycleConfiguration"]["Rules"]}
    assert rules[PREFIX]["ExpirationInDays"] == 1
    assert rules["files/"]["ExpirationInDays"] == rules["out/"]["ExpirationInDays"] == 30
    assert rules["work/"]["ExpirationInDays"] > 1, "as long as a batch may take"
    assert "in/" not in rules, "what lies there is its owner's"
    assert (bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]) == ("Retain", "Retain")
    [policy] = of_type(resources, "AWS::S3::BucketPolicy").values()
    [statement] = policy["Properties"]["PolicyDocument"]["Statement"]
    assert (policy["Properties"]["Bucket"], statement["Effect"]) == ({"Ref": name}, "Deny")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert resources["Embed"]["Properties"]["Environment"]["Variables"]["RESULTS_BUCKET"] == {"Ref": name}


def test_nothing_has_a_fixed_name(resources: dict[str, Any]) -> None:
    fixed = {"TableName", "FunctionName", "RoleName", "LogGroupName", "Name"}
    own = {name: each for name, each in resources.items() if not each["Type"].startswith("AWS::Lambda::")}
    own |= of_type(resources, "AWS::Lambda::Function")

    assert {name: fixed & set(each.get("Properties", {})) for name, each in own.items()} == {
        name: set() for name in own
    }


def test_concurrency_is_reserved_only_where_asked_for(source: Template, resources: dict[str, Any]) -> None:
    asked = settled(source, ReservedConcurrency="7")

    assert "ReservedConcurrentExecutions" not in resources["Embed"]["Properties"]
    assert asked["Embed"]["Properties"]["ReservedConcurrentExecutions"] == "7"


def test_every_variable_the_template_sets_is_one_the_function_reads(resources: dict[str, Any]) -> None:
    for function in of_type(resources, "AWS::Lambda::Function").values():
        variables = function["Properties"]["Environment"]["Variables"]
        assert set(variables) <= {name.upper() for name in Settings.__dataclass_fields__} | ORT
    variables = resources["Ledger"]["Properties"]["Environment"]["Variables"]
    assert variables["ROLLUPS_TABLE"] == {"Ref": "Rollups"}
    assert variables["LIMITS_TABLE"] == {"Ref": "Limits"}
    variables = resources["Embed"]["Properties"]["Environment"]["Variables"]
    assert variables["KEYS_TABLE"] == {"Ref": "Keys"}
    assert variables["USAGE_TABLE"] == {"Ref": "Usage"}
    assert variables["LIMITS_TABLE"] == {"Ref": "Limits"}
    assert variables["PRICES_TABLE"] == {"Ref": "Prices"}
    assert variables["ENTRIES_TABLE"] == {"Ref": "Entries"}
    assert variables["LEDGER_QUEUE"] == {"Ref": "LedgerQueue"}


def test_what_writes_a_record_late_tells_retries_as_what_writes_it_at_once(source: Template) -> None:
    windows = [
        source["Resources"][name]["Properties"]["Environment"]["Variables"]["RETRY_WINDOW"]
        for name in ("Embed", "Ledger")
    ]

    assert windows == [{"Ref": "RetryWindow"}] * 2
    allowed = re.compile(source["Parameters"]["RetryWindow"]["AllowedPattern"])
    most = next(each for each in dataclasses.fields(Settings) if each.name == "retry_window").metadata["most"]
    assert [n for n in range(100_000) if allowed.fullmatch(str(n))] == [*range(most + 1)]


def test_a_parameter_offers_what_its_setting_takes_and_has_its_default(
    source: Template, resources: dict[str, Any]
) -> None:
    declared = {each.name.upper(): each for each in dataclasses.fields(Settings)}
    variables = source["Resources"]["Embed"]["Properties"]["Environment"]["Variables"]
    found = {name: value["Ref"] for name, value in variables.items() if isinstance(value, dict)}
    parameters = {name: source["Parameters"][ref] for name, ref in found.items() if ref in source["Parameters"]}
    asked = {"MODEL_ALIASES", "TOKEN_ARRAYS", "EMPTY_INPUT", "TRUNCATE", "MAX_QUEUE_SECONDS", "CORS_ORIGINS"}
    billing = {"INPUT_PER_MTOK", "BATCH_FACTOR", "PRICE_EFFECTIVE_AT", "RETRY_WINDOW"}
    assert asked | billing <= {*parameters}
    for name, parameter in parameters.items():
        assert parameter["Default"] == str(declared[name].default), name
        if choices := declared[name].metadata["choices"]:
            assert sorted(parameter["AllowedValues"]) == sorted(choices), name


def test_every_log_level_the_function_has_can_be_asked_for_and_passes_lambdas_own_filter(source: Template) -> None:
    allowed = source["Parameters"]["LogLevel"]["AllowedValues"]
    spelt = {"DEBUG": "DEBUG", "INFO": "INFO", "WARNING": "WARN", "ERROR": "ERROR"}

    assert tuple(allowed) == Settings.__dataclass_fields__["log_level"].metadata["choices"]
    for level in allowed:
        function = settled(source, LogLevel=level)["Embed"]["Properties"]
        assert function["Environment"]["Variables"]["LOG_LEVEL"] == level
        assert function["LoggingConfig"]["ApplicationLogLevel"] == spelt[level]


def test_the_function_logs_json_into_a_group_of_its_own_that_forgets(
    source: Template, resources: dict[str, Any]
) -> None:
    for name, function in of_type(resources, "AWS::Lambda::Function").items():
        logging = function["Properties"]["LoggingConfig"]
        assert (logging["LogFormat"], logging["LogGroup"]) == ("JSON", {"Ref": f"{name}Logs"})
        assert settled(source, LogRetentionDays="7")[f"{name}Logs"]["Properties"]["RetentionInDays"] == "7"


def test_the_image_is_made_of_a_dockerfile_and_a_target_that_exist(source: Template) -> None:
    build = source["Resources"]["Embed"]["Metadata"]
    dockerfile = PATH.parent / build["DockerContext"] / build["Dockerfile"]

    assert f" AS {build['DockerBuildTarget']}\n" in dockerfile.read_text()
    assert set(build["DockerBuildArgs"]) == {"MODEL"}
    assert build["DockerBuildArgs"]["MODEL"] in MODELS


def test_one_image_is_built_for_all_functions(source: Template) -> None:
    """`sam build` makes one of all that it is told the same of."""
    built = [each["Metadata"] for each in source["Resources"].values() if "Metadata" in each]

    assert len(built) == 4
    assert all(each == built[0] for each in built)


def test_the_ledgers_stream_tells_keys_alone_to_the_function_that_keeps_the_books(resources: dict[str, Any]) -> None:
    [mapping] = mappings(resources, "Usage")

    assert resources["Usage"]["Properties"]["StreamSpecification"] == {"StreamViewType": "KEYS_ONLY"}
    assert mapping["EventSourceArn"] == {"Fn::GetAtt": ["Usage", "StreamArn"]}
    assert mapping["FunctionName"] == {"Ref": "LedgerAliaslive"}
    assert mapping["StartingPosition"] == "TRIM_HORIZON"
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BisectBatchOnFunctionError"] is True
    assert 0 < mapping["MaximumRetryAttempts"] <= 10_000, "-1 would hold up the shard for a day"
    assert mapping["DestinationConfig"] == {"OnFailure": {"Destination": {"Fn::GetAtt": ["LedgerSkipped", "Arn"]}}}
    assert 1 <= mapping["MaximumBatchingWindowInSeconds"] <= 30, "reports trail by about a minute at most"
    assert resources["Ledger"]["Properties"]["Environment"]["Variables"]["FUNCTION_ROLE"] == "ledger"


def test_the_hourly_event_reaches_the_alias_alone(resources: dict[str, Any]) -> None:
    [rule] = [each["Properties"] for each in of_type(resources, "AWS::Events::Rule").values()]
    [permission] = [
        each["Properties"]
        for each in of_type(resources, "AWS::Lambda::Permission").values()
        if each["Properties"]["Principal"] == "events.amazonaws.com"
    ]

    assert rule["ScheduleExpression"] == "cron(5 * * * ? *)", "past the hour, so that its last records are there"
    assert [each["Arn"] for each in rule["Targets"]] == [{"Ref": "LedgerAliaslive"}]
    assert permission["FunctionName"] == {"Ref": "LedgerAliaslive"}


def test_every_alarm_is_of_a_metric_that_somebody_writes_and_goes_to_the_topic_that_is_asked_for(
    source: Template,
) -> None:
    topic = "arn:aws:sns:us-east-1:123456789012:ops"
    quiet, loud = (
        of_type(each, "AWS::CloudWatch::Alarm") for each in (settled(source), settled(source, AlarmTopic=topic))
    )

    assert {each["Properties"]["AlarmActions"][0] for each in loud.values()} == {topic}
    assert not any("AlarmActions" in each["Properties"] for each in quiet.values())
    touched = quiet["LedgerWasTouched"]["Properties"]
    assert (touched["Namespace"], touched["MetricName"]) == (logs.NAMESPACE, stream.METRIC)
    assert touched["Dimensions"] == [{"Name": "FunctionName", "Value": {"Ref": "Ledger"}}]
    assert touched["Threshold"] == 0
    ahead = quiet["LimitsStayAhead"]["Properties"]
    assert (ahead["Namespace"], ahead["MetricName"], ahead["Threshold"]) == (logs.NAMESPACE, corrections.METRIC, 0)
    assert ahead["Dimensions"] == touched["Dimensions"]
    assert ahead["Period"] * ahead["EvaluationPeriods"] > 3 * 3600, "what is left once is no alarm yet"
    behind = quiet["LedgerIsBehind"]["Properties"]
    assert (behind["Namespace"], behind["MetricName"], behind["Threshold"]) == ("AWS/Lambda", "IteratorAge", 900_000)


def test_outputs_are_what_an_operator_needs_next(source: Template) -> None:
    outputs = {name: each["Value"] for name, each in cloudformation.expand(source)["Outputs"].items()}

    assert outputs == {
        "ManagedUrl": {"Fn::GetAtt": ["EmbedManagedUrl", "FunctionUrl"]},
        "GpuUrl": {"Fn::GetAtt": ["EmbedGpuUrl", "FunctionUrl"]},
        "Url": {"Fn::GetAtt": ["EmbedUrl", "FunctionUrl"]},
        "FunctionName": {"Ref": "Embed"},
        "KeysTable": {"Ref": "Keys"},
        "UsageTable": {"Ref": "Usage"},
        "LimitsTable": {"Ref": "Limits"},
        "PricesTable": {"Ref": "Prices"},
        "EntriesTable": {"Ref": "Entries"},
        "LedgerQueue": {"Ref": "LedgerQueue"},
        "RollupsTable": {"Ref": "Rollups"},
        "ResultsBucket": {"Ref": "Results"},
        "JobsTable": {"Ref": "Jobs"},
        "MessagesQueue": {"Ref": "Messages"},
        "WorkRole": {"Fn::GetAtt": ["WorkRole", "Arn"]},
        "AdminRole": {"Fn::GetAtt": ["AdminRole", "Arn"]},
    }
