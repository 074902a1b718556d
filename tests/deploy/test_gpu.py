"""What `sam deploy` makes of template.yaml where GPUs are asked for. No emulator has any: the functions' own properties
are held against AWS's references here, and what else they are is seen on MiniStack (test_stack.py)."""

from pathlib import Path
from typing import Any

import pytest
from samtranslator.model.exceptions import InvalidDocumentException

from handler.settings import Settings
from tests.stack import cloudformation
from tests.stack.cloudformation import UNCHECKED, RefusedError, Template

PATH = Path(__file__).parents[2] / "template.yaml"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/emblet:gpu"
NETWORK = {"ManagedSubnetIds": "subnet-0123456789abcdef0", "ManagedSecurityGroupIds": "sg-0123456789abcdef0"}
MANAGED = "LambdaManagedInstancesCapacityProviderConfig"


@pytest.fixture(scope="module")
def source() -> Template:
    return cloudformation.load(PATH)


def settled(source: Template, **parameters: str) -> dict[str, Any]:
    given = {**NETWORK, "GpuImage": IMAGE, **parameters}
    return cloudformation.settle(cloudformation.expand(source, given), given)


@pytest.fixture(scope="module")
def plain(source: Template) -> dict[str, Any]:
    return settled(source)


@pytest.fixture(scope="module")
def gpu(source: Template) -> dict[str, Any]:
    """The stack's resources, with both functions on GPUs."""
    return settled(source, DeployGpu="true", DeployGpuWork="true")


def test_each_function_on_gpus_is_an_addition_of_those_who_want_it(
    source: Template, plain: dict[str, Any], gpu: dict[str, Any]
) -> None:
    one, other = (settled(source, **{each: "true"}).keys() - plain.keys() for each in ("DeployGpu", "DeployGpuWork"))

    assert not any("Gpu" in name for name in plain)
    assert {"EmbedGpu", "EmbedGpuUrl", "EmbedGpuAliaslive", "GpuLostRecords"} < one
    assert {"WorkGpu", "WorkGpuAliaslive", "WorkGpuShard", "WorkGpuMessage", "GpuLostBatchRecords"} < other
    assert one & other == {"GpuCapacity", "GpuCapacityOperatorRole"}, "the instances are shared"
    assert gpu.keys() - plain.keys() == one | other


@pytest.mark.parametrize("asked", ["DeployManaged", "DeployGpu", "DeployGpuWork"])
@pytest.mark.parametrize("network", NETWORK)
def test_instances_without_a_network_are_refused_before_anything_is_made(
    source: Template, asked: str, network: str
) -> None:
    with pytest.raises(RefusedError) as refused:
        settled(source, **{asked: "true", network: ""})
    assert refused.value.args == (f"DeployManaged, DeployGpu and DeployGpuWork need {network}.",)


@pytest.mark.parametrize("asked", ["DeployGpu", "DeployGpuWork"])
def test_gpus_without_an_image_are_refused_before_anything_is_made(source: Template, asked: str) -> None:
    default = source["Parameters"]["GpuImage"]["Default"]
    for image in (default, ""):
        with pytest.raises(RefusedError, match="need GpuImage"):
            settled(source, **{asked: "true", "GpuImage": image})
    assert settled(source, DeployManaged="true", GpuImage=default), "which has the image of all"


def test_who_asks_for_no_instances_need_say_nothing_of_them(source: Template) -> None:
    assert cloudformation.settle(cloudformation.expand(source))


@pytest.mark.parametrize(("name", "on_cpus"), [("EmbedGpu", "Embed"), ("WorkGpu", "Work")])
def test_a_function_on_gpus_is_the_one_on_cpus_with_another_image(gpu: dict[str, Any], name: str, on_cpus: str) -> None:
    ours, theirs = gpu[name]["Properties"], gpu[on_cpus]["Properties"]
    own = {"AcceleratorConfig", "CapacityProviderConfig", "Code", "Environment", "FunctionScalingConfig", "MemorySize"}
    promised = {"REQUIRE_GPU": "1", "MAX_RUN_SECONDS": "30"} | (
        {"MAX_QUEUE_REQUESTS": "128"} if name == "EmbedGpu" else {}
    )

    assert ours["Environment"]["Variables"] == theirs["Environment"]["Variables"] | promised
    assert {key: ours[key] for key in ours.keys() - own} == {key: theirs[key] for key in ours.keys() - own}
    assert ours["Code"] == {"ImageUri": IMAGE}
    assert {each.lower() for each in promised} <= {*Settings.__dataclass_fields__}


@pytest.mark.parametrize("name", ["EmbedGpu", "WorkGpu"])
def test_an_environment_is_as_lambda_makes_one_with_a_gpu(source: Template, gpu: dict[str, Any], name: str) -> None:
    function = gpu[name]["Properties"]
    provider = function["CapacityProviderConfig"][MANAGED]

    assert function["AcceleratorConfig"] == {"AcceleratorMemorySize": 24}
    assert source["Parameters"]["GpuMemoryGiB"]["AllowedValues"] == [3, 6, 12, 16, 24, 48]
    assert (function["PackageType"], function["Architectures"]) == ("Image", ["x86_64"]), "GPUs go with nothing else"
    assert provider["CapacityProviderArn"] == {"Fn::GetAtt": ["GpuCapacity", "Arn"]}
    assert provider["ExecutionEnvironmentMemoryGiBPerVCpu"] in (2, 4, 8)
    assert 2048 <= function["MemorySize"] <= 32_768
    assert function["MemorySize"] % (1024 * provider["ExecutionEnvironmentMemoryGiBPerVCpu"]) == 0


def test_what_gpus_cost_is_capped(source: Template) -> None:
    gpu = settled(source, DeployGpu="true", DeployGpuWork="true", GpuMaxVCpus="8", GpuMaxEnvironments="1")
    capacity = gpu["GpuCapacity"]["Properties"]
    versions = [each["Properties"] for name, each in gpu.items() if "GpuVersion" in name]

    assert capacity["CapacityProviderScalingConfig"]["MaxVCpuCount"] == "8"
    assert capacity["InstanceRequirements"] == {"Architectures": ["x86_64"], "AllowedInstanceTypes": "g6.xlarge"}
    assert capacity["VpcConfig"] == {
        "SubnetIds": NETWORK["ManagedSubnetIds"],
        "SecurityGroupIds": NETWORK["ManagedSecurityGroupIds"],
    }
    assert [each["FunctionScalingConfig"] for each in versions] == [
        {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": "1"}
    ] * 2


def test_on_gpus_the_services_own_refusal_comes_before_lambdas(gpu: dict[str, Any]) -> None:
    function = gpu["EmbedGpu"]["Properties"]
    most = function["CapacityProviderConfig"][MANAGED]["PerExecutionEnvironmentMaxConcurrency"]

    assert int(function["Environment"]["Variables"]["MAX_QUEUE_REQUESTS"]) < most


def mappings(resources: dict[str, Any], function: str) -> dict[str, dict[str, Any]]:
    """A function's event source mappings, by the name of their queues."""
    found = [each["Properties"] for each in resources.values() if each["Type"] == "AWS::Lambda::EventSourceMapping"]
    mine = [each for each in found if each["FunctionName"] == {"Ref": f"{function}Aliaslive"}]
    return {each["EventSourceArn"]["Fn::GetAtt"][0]: each for each in mine}


def test_the_queues_have_one_function_that_takes_from_them(plain: dict[str, Any], gpu: dict[str, Any]) -> None:
    """Else some vectors of a batch would come from int8, and some from float16."""
    on_cpus, on_gpus = mappings(gpu, "Work"), mappings(gpu, "WorkGpu")
    own = {"Enabled", "FunctionName", "ScalingConfig"}

    assert on_cpus.keys() == on_gpus.keys() == {"Shards", "Messages"}
    assert [each["Enabled"] for each in mappings(plain, "Work").values()] == [True, True]
    assert [each["Enabled"] for each in on_cpus.values()] == [False, False]
    assert all("Enabled" not in each for each in on_gpus.values()), "which is: they are"
    for queue, ours in on_gpus.items():
        assert {key: ours[key] for key in ours.keys() - own} == {
            key: on_cpus[queue][key] for key in on_cpus[queue].keys() - own
        }


def test_what_the_queues_send_at_once_finds_room_in_the_one_environment_that_there_always_is(source: Template) -> None:
    """What Lambda has no room for comes again as received once more, in the end line by line, and then to the dead."""
    most = source["Parameters"]["GpuWorkConcurrency"]["MaxValue"]
    gpu = settled(source, DeployGpuWork="true", GpuWorkConcurrency=str(most))
    at_once = [int(each["ScalingConfig"]["MaximumConcurrency"]) for each in mappings(gpu, "WorkGpu").values()]

    provider = gpu["WorkGpu"]["Properties"]["CapacityProviderConfig"][MANAGED]
    assert sum(at_once) == 2 * most <= provider["PerExecutionEnvironmentMaxConcurrency"]


@pytest.mark.parametrize("name", ["EmbedGpu", "WorkGpu"])
def test_another_image_is_another_version(source: Template, name: str) -> None:
    def version(image: str) -> str:
        found = settled(source, DeployGpu="true", DeployGpuWork="true", GpuImage=image)
        [one] = [each for each in found if each.startswith(f"{name}Version")]
        return one

    assert version(IMAGE) != version(f"{IMAGE}-2")


@pytest.mark.parametrize("name", ["EmbedGpu", "WorkGpu"])
def test_sam_builds_no_image_for_gpus_which_most_do_not_want(source: Template, name: str) -> None:
    function = source["Resources"][name]

    assert "Metadata" not in function
    assert function["Properties"]["ImageUri"] == {"Ref": "GpuImage"}


@pytest.mark.parametrize(("alarm", "name"), [("GpuLostRecords", "EmbedGpu"), ("GpuLostBatchRecords", "WorkGpu")])
def test_a_record_that_is_lost_on_gpus_raises_an_alarm_too(gpu: dict[str, Any], alarm: str, name: str) -> None:
    ours, theirs = gpu[alarm]["Properties"], gpu["LedgerLostRecords"]["Properties"]
    told = {"AlarmDescription", "Dimensions"}

    assert ours["Dimensions"] == [{"Name": "FunctionName", "Value": {"Ref": name}}]
    assert {key: ours[key] for key in ours.keys() - told} == {key: theirs[key] for key in theirs.keys() - told}


def test_aws_documents_a_property_that_its_tools_refuse(source: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    """The day this fails, tests/stack/cloudformation.py need not take it out, and README need not tell of it."""
    gpu = cloudformation.expand(source)
    gpu["Resources"]["Embed"]["Properties"]["Unknown"] = gpu["Resources"]["EmbedGpu"]["Properties"][UNCHECKED]
    assert any("'Unknown' was unexpected" in each for each in cloudformation.lint(gpu)), "lint would see it"

    monkeypatch.setattr(cloudformation, "UNCHECKED", "Nothing")
    assert any(f"'{UNCHECKED}' was unexpected" in each for each in cloudformation.lint(gpu))
    with pytest.raises(InvalidDocumentException) as refused:
        cloudformation.expand(source)
    assert {f"{cause.message}" for cause in refused.value.causes} == {
        f"Resource with id [{name}] is invalid. property {UNCHECKED} not defined for resource of type "
        "AWS::Serverless::Function"
        for name in ("EmbedGpu", "WorkGpu")
    }
