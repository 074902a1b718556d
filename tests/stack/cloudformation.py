"""SAM templates without AWS: what CloudFormation would make of one, what a linter finds in that, a stack of it."""

import copy
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from cfnlint.api import lint as cfnlint  # type: ignore[import-untyped]
from cfnlint.config import ManualArgs  # type: ignore[import-untyped]
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

REGION = "us-east-1"
Template = dict[str, Any]

# What is right: a parameter that is needed where a condition holds, and empty elsewhere; one whose value the translator
# has put in its place; one that is used in what is taken out here.
_RIGHT = (
    "W1030 '' does not match",
    "W1030 '' is not a ",
    "W2001 Parameter GpuImage not used",
    "W2001 Parameter GpuMemoryGiB not used",
)

# Of SAM's reference, and unknown to its translator (1.115), which refuses the template, and to cfn-lint (1.58): "passed
# directly to the AcceleratorConfig property of an AWS::Lambda::Function", says the reference, and that is done here.
UNCHECKED = "AcceleratorConfig"

_IMAGE_ONLY = ("PackageType", "ImageUri", "ImageConfig")
# What MiniStack refuses: there, such functions are ordinary ones.
_MANAGED_ONLY = (UNCHECKED, "CapacityProviderConfig", "FunctionScalingConfig")
_CAPACITY = "AWS::Serverless::CapacityProvider"
# What stands for an image on MiniStack, which has no Docker to run one: each event goes to the emulator whose address
# the file holds by then, one at a time: of a function's mappings, each comes when it has something. Its failures are
# the function's own, so that a function URL answers 502 to them.
_FORWARDER = """
import fcntl, json, pathlib, urllib.request

ADDRESS = pathlib.Path({address!r})

def handler(event, context):
    head = {{"content-type": "application/json"}}
    with ADDRESS.open() as address:
        fcntl.flock(address, fcntl.LOCK_EX)
        call = urllib.request.Request(address.read(), json.dumps(event).encode(), head)
        with urllib.request.urlopen(call, timeout=900) as response:
            answer = json.loads(response.read())
    if isinstance(answer, dict) and "errorType" in answer and "statusCode" not in answer:
        raise RuntimeError(answer)
    return answer
"""


class RefusedError(Exception):
    """Parameters that a template's Rules do not admit: nothing of the stack is made."""


def load(path: Path) -> Template:
    template: Template = yaml_parse(path.read_text(encoding="utf-8"))
    return template


def expand(template: Template | Path, parameters: Mapping[str, str] | None = None) -> Template:
    """The plain CloudFormation of a SAM template, its intrinsic functions still in it. `template` stays as it is."""
    source = load(template) if isinstance(template, Path) else copy.deepcopy(template)
    unchecked = {name: each.pop(UNCHECKED) for name, each in _functions(source).items() if UNCHECKED in each}
    for properties in _functions(source).values():
        if properties.get("PackageType") == "Image":
            properties.setdefault("ImageUri", "built-by-sam:1")  # `sam build` makes one of the Metadata
    # The translator asks a session for its Region, and nothing else.
    translator = Translator({}, Parser(), boto_session=boto3.Session(region_name=REGION))
    expanded: Template = translator.translate(source, parameter_values=dict(parameters or {}))
    for name, value in unchecked.items():
        expanded["Resources"][name]["Properties"][UNCHECKED] = value
    return expanded


def lint(expanded: Template) -> list[str]:
    """cfn-lint's findings of every severity. Give it what `expand` made: of SAM's own types it checks little."""
    expanded = copy.deepcopy(expanded)
    for each in expanded["Resources"].values():
        each.get("Properties", {}).pop(UNCHECKED, None)
    findings = cfnlint(json.dumps(expanded), config=ManualArgs(regions=[REGION], include_checks=["I"]))
    found = sorted(f"{each.rule.id} {each.message}" for each in findings)
    return [each for each in found if not each.startswith(_RIGHT)]


def settle(expanded: Template, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The resources as CloudFormation would create them with these parameters: those whose condition holds, Ref to a
    parameter, Fn::If and Fn::FindInMap evaluated, properties of no value left out. References to resources stay. Raises
    RefusedError with what the Rules say of the parameters."""
    values = {name: each.get("Default") for name, each in expanded.get("Parameters", {}).items()} | dict(
        parameters or {}
    )
    nothing = object()

    def holds(condition: Any) -> bool:
        if isinstance(condition, str):
            return holds(expanded["Conditions"][condition])
        [(function, operands)] = condition.items()
        match function:
            case "Fn::Equals":
                return bool(value(operands[0]) == value(operands[1]))
            case "Fn::Not":
                return not holds(operands[0])
            case "Fn::Or":
                return any(map(holds, operands))
            case "Fn::EachMemberEquals":
                return all(each == operands[1] for each in str(value(operands[0])).split(","))
            case "Condition":
                return holds(operands)
        raise NotImplementedError(function)

    def value(node: Any) -> Any:
        match node:
            case {"Ref": "AWS::NoValue"}:
                return nothing
            case {"Ref": str(name)} if name in values:
                return values[name]
            case {"Fn::If": [condition, yes, no]}:
                return value(yes if holds(condition) else no)
            case {"Fn::FindInMap": [str(name), first, second]}:
                return expanded["Mappings"][name][value(first)][value(second)]
            case dict():
                return {key: each for key, part in node.items() if (each := value(part)) is not nothing}
            case list():
                return [each for part in node if (each := value(part)) is not nothing]
        return node

    asserted = [
        each
        for rule in expanded.get("Rules", {}).values()
        if holds(rule["RuleCondition"])
        for each in rule["Assertions"]
    ]
    if refused := [each["AssertDescription"] for each in asserted if not holds(each["Assert"])]:
        raise RefusedError(*refused)
    settled: dict[str, Any] = value(expanded["Resources"])
    return {name: each for name, each in settled.items() if "Condition" not in each or holds(each["Condition"])}


@dataclass(frozen=True)
class Stack:
    name: str
    outputs: dict[str, str]
    resources: dict[str, str]  # logical to physical id


def client(service: str, endpoint: str) -> Any:
    """A client of one of MiniStack's services."""
    return boto3.Session("test", "test", region_name=REGION).client(service, endpoint_url=endpoint)  # type: ignore[call-overload]


def deploy(
    template: Path,
    endpoint: str,
    *,
    forward_to: Path,
    parameters: Mapping[str, str] | None = None,
    timeout_s: float = 60,
) -> Stack:
    """A stack of the template on MiniStack, whose own translator expands it. Image functions become forwarders to the
    emulators whose addresses lie in the folder `forward_to`, in files of the functions' names, when they are called;
    those of Managed Instances too. RuntimeError where the stack fails."""
    source, cloudformation, parameters = load(template), client("cloudformation", endpoint), parameters or {}
    defaults, resources = source["Parameters"], source["Resources"]
    source["Resources"] = {name: each for name, each in resources.items() if each["Type"] != _CAPACITY}
    for function, properties in _functions(source).items():
        for name in _MANAGED_ONLY:
            properties.pop(name, None)
        if properties.get("PackageType") == "Image":
            for name in _IMAGE_ONLY:
                properties.pop(name, None)
            code = _FORWARDER.format(address=str(forward_to / function))
            properties |= {"Runtime": "python3.13", "Handler": "index.handler", "InlineCode": code}
        for event in properties.get("Events", {}).values():
            # MiniStack keeps a Ref's value as text, where CloudFormation makes a number of it; its poller then fails at
            # this mapping, and comes to no later one.
            if scaling := event["Properties"].get("ScalingConfig"):
                most = scaling["MaximumConcurrency"]["Ref"]
                scaling["MaximumConcurrency"] = int(parameters.get(most, defaults[most]["Default"]))
    name = f"emblet-{uuid.uuid4().hex[:8]}"
    files = client("s3", endpoint)  # a call of CloudFormation's holds 51,200 bytes; `sam deploy` takes this way too
    files.create_bucket(Bucket=name)
    files.put_object(Bucket=name, Key="template.json", Body=json.dumps(source).encode())
    cloudformation.create_stack(
        StackName=name,
        TemplateURL=f"{endpoint}/{name}/template.json",
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        Parameters=[{"ParameterKey": key, "ParameterValue": each} for key, each in parameters.items()],
    )
    end = time.monotonic() + timeout_s
    while (stack := cloudformation.describe_stacks(StackName=name)["Stacks"][0])["StackStatus"].endswith("IN_PROGRESS"):
        if time.monotonic() > end:
            raise RuntimeError(f"{name} is still {stack['StackStatus']} after {timeout_s} s")
        time.sleep(0.1)
    if stack["StackStatus"] != "CREATE_COMPLETE":
        events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
        reasons = [f"{each['LogicalResourceId']}: {each.get('ResourceStatusReason')}" for each in events]
        raise RuntimeError(f"{name} is {stack['StackStatus']}: {'; '.join(reasons)}")
    resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    return Stack(
        name,
        {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]},
        {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources},
    )


def _functions(template: Template) -> dict[str, dict[str, Any]]:
    """Properties of the template's SAM functions, for changing in place."""
    return {
        name: each.setdefault("Properties", {})
        for name, each in template["Resources"].items()
        if each["Type"] == "AWS::Serverless::Function"
    }
