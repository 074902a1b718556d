"""The README's files for other container hosts: what in them can be held against the service itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from handler import settings
from handler.api import health

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
RECORD_S = 3  # that a usage record may take after DRAIN_SECONDS (handler/api/app.py)
SECTION = README.partition("### Elsewhere\n")[2].partition("\n## ")[0]


def files(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


CLOUD_RUN, AZURE, KNATIVE = (yaml.safe_load(text) for text in files("yaml"))
(RUNPOD, SAGEMAKER), [MODAL] = files("sh"), files("python")


def container(file: dict[str, Any]) -> dict[str, Any]:
    template = (file.get("spec") or file["properties"])["template"]
    [found] = template.get("spec", template)["containers"]
    assert isinstance(found, dict)
    return found


def environment(file: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(file)["env"] if "value" in each}


def configured(variables: dict[str, str]) -> settings.Settings:
    """The settings of a file, of which every variable must be one of ours or AWS's."""
    assert all(name.lower() in settings.Settings.__dataclass_fields__ for name in variables), variables
    return settings.parse(variables)


def probes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "httpGet" in node:
            yield node
        for each in node.values():
            yield from probes(each)
    elif isinstance(node, list):
        for each in node:
            yield from probes(each)


@pytest.mark.parametrize("file", [CLOUD_RUN, AZURE, KNATIVE], ids=["Cloud Run", "Azure", "Knative"])
def test_probes_ask_routes_that_there_are_on_the_port_that_is_served(file: dict[str, Any]) -> None:
    routes = {getattr(route, "path", "") for route in health.router.routes}
    port = configured(environment(file)).port

    assert {probe["httpGet"]["path"] for probe in probes(file)} == {"/ready", "/health"} <= routes
    assert {probe["httpGet"].get("port", port) for probe in probes(file)} == {port}
    assert all(each["containerPort"] == port for each in container(file).get("ports", []))


@pytest.mark.parametrize(
    ("file", "grace_s", "request_s"),
    [(CLOUD_RUN, 10, 620), (AZURE, 30, 240), (KNATIVE, 600, 600)],
    ids=["Cloud Run", "Azure", "Knative"],
)
def test_the_server_has_ended_and_answered_before_the_host_ends_it(
    file: dict[str, Any], grace_s: int, request_s: int
) -> None:
    config = configured(environment(file))

    assert config.drain_seconds + RECORD_S < grace_s
    assert config.request_seconds < request_s


def test_the_hosts_own_limits_are_as_the_files_say() -> None:
    cloud_run, knative = CLOUD_RUN["spec"]["template"]["spec"], KNATIVE["spec"]["template"]["spec"]
    ingress = AZURE["properties"]["configuration"]["ingress"]
    startup = container(CLOUD_RUN)["startupProbe"]

    assert (cloud_run["timeoutSeconds"], knative["timeoutSeconds"]) == (620, 600)
    assert AZURE["properties"]["template"]["terminationGracePeriodSeconds"] == 30
    assert ingress["targetPort"] == settings.parse({}).port
    assert startup["periodSeconds"] * startup["failureThreshold"] <= 240
    assert int(environment(CLOUD_RUN)["MAX_BODY_BYTES"]) <= 32 << 20
    assert all(probe.get("failureThreshold", 3) <= 10 for probe in probes(AZURE))


def test_hosts_send_more_requests_at_once_than_the_queue_takes() -> None:
    most = settings.parse({}).max_queue_requests
    [inputs] = map(int, re.findall(r"max_inputs=(\d+)", MODAL))
    sent = [file["spec"]["template"]["spec"]["containerConcurrency"] for file in (CLOUD_RUN, KNATIVE)]

    assert min(*sent, inputs) > most


def variables(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_what_a_host_is_given_as_text_is_whole() -> None:
    ast.parse(MODAL)
    sagemaker = configured(variables(SAGEMAKER))

    assert configured(variables(RUNPOD)).request_seconds < 330
    assert sagemaker.request_seconds < 60
    assert sagemaker.drain_seconds + RECORD_S < 30
    assert f"web_server({settings.parse({}).port}," in MODAL
    assert "self.server.wait(20)" in MODAL
    assert settings.parse({}).drain_seconds + RECORD_S < 20
