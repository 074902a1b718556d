"""`make run` from its second step on: the process that serves everything on one machine."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from handler.billing.rollups import Rollups
from tests.stack import cloudformation
from tests.stack.process import free_port

HOUSE = Path(__file__).resolve().parent.parent


@dataclass
class Local:
    process: "subprocess.Popen[str]"
    port: int
    printed: str


@pytest.fixture(scope="module")
def local(minilm: Path) -> Iterator[Local]:
    port = free_port()
    # What a platform engineer's shell may hold, and must not lead the service elsewhere.
    shell = {
        "AWS_PROFILE": "stale",
        "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:1",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }
    env = os.environ | shell
    process = subprocess.Popen(
        [sys.executable, "-m", "handler.local", minilm.name],
        cwd=HOUSE,
        env=env | {"PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("Ctrl-C ends the service"):
            break
    assert process.poll() is None, printed
    yield Local(process, port, printed)
    process.kill()


def key(printed: str, role: str) -> str:
    [found] = re.findall(rf"^{role} key +(sk-\S+)$", printed, re.MULTILINE)
    return str(found)


def test_it_says_what_it_serves_and_prints_a_key_for_each_role(local: Local) -> None:
    assert "Serving all-minilm-l6-v2 (384 dimensions, 256 tokens, int8)" in local.printed
    assert "bge-m3" in local.printed
    assert key(local.printed, "inference") != key(local.printed, "admin")


def test_the_printed_curl_line_works_when_pasted(local: Local) -> None:
    [line] = re.findall(r"curl http.*?}'", local.printed, re.DOTALL)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert '"object":"embedding"' in done.stdout, done.stderr


def test_the_printed_snippet_works_when_pasted(local: Local) -> None:
    [snippet] = re.findall(r"^from openai.*?answer\.usage\)$", local.printed, re.DOTALL | re.MULTILINE)
    done = subprocess.run([sys.executable, "-c", snippet], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("2 384 Usage(prompt_tokens="), done.stderr


def test_the_operators_tools_work_with_the_lines_that_are_printed_for_them(local: Local) -> None:
    """README's first calls and others, in a shell whose own settings lead elsewhere."""
    [lines] = re.findall(r"^unset AWS_.*?\n\n", local.printed, re.DOTALL | re.MULTILINE)
    [block] = re.findall(r"## Keys and usage\n.*?```sh\n(.*?)```", (HOUSE / "README.md").read_text(), re.DOTALL)
    script = f"""
{lines}
{block}
python -m handler.billing.prices list
python -m handler.billing.rollups check --account acme --from "$(date -u +%F)" --to "$(date -u +%F)"
python -m handler.billing.reports --account acme --month "$(date -u +%Y-%m)"
"""
    env = {"PATH": os.environ["PATH"], "AWS_PROFILE": "stale"}
    done = subprocess.run(["sh", "-ec", script], cwd=HOUSE, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\tacme\tinference\t" in done.stdout
    assert "0 differences, 0 mended" in done.stdout


def test_what_was_used_is_summed_a_second_later(local: Local) -> None:
    [endpoint] = re.findall(r"MiniStack on (http\S+)\.$", local.printed, re.MULTILINE)
    table = cloudformation.client("dynamodb", endpoint)

    def total() -> int:
        rows = Rollups(lambda: table, "Rollups").read("local", "1m", int(time.time()) - 3600, int(time.time()) + 60)
        return sum(sums.tokens for bucket in rows for sums in bucket.groups.values())

    before = total()
    with openai.OpenAI(base_url=f"http://127.0.0.1:{local.port}/v1", api_key=key(local.printed, "inference")) as client:
        used = client.embeddings.create(model="all-minilm-l6-v2", input="one more").usage.prompt_tokens
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and total() < before + used:
        time.sleep(0.2)
    assert total() >= before + used


def test_a_batch_is_done(local: Local) -> None:
    body = {"model": "all-minilm-l6-v2", "input": "the quick brown fox"}
    line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": body}).encode()
    with openai.OpenAI(base_url=f"http://127.0.0.1:{local.port}/v1", api_key=key(local.printed, "inference")) as client:
        file = client.files.create(file=("in.jsonl", line), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
        deadline = time.monotonic() + 30
        while batch.status != "completed" and time.monotonic() < deadline:
            time.sleep(0.2)
            batch = client.batches.retrieve(batch.id)
        assert batch.output_file_id is not None
        assert '"custom_id":"1"' in client.files.content(batch.output_file_id).text


def test_a_file_that_a_terminal_submits_and_an_object_that_is_put_are_batches(local: Local, tmp_path: Path) -> None:
    """Both are put to the stand-in's S3, the first by a presigned URL, which it looks at as S3 would."""
    body = {"model": "all-minilm-l6-v2", "input": "the quick brown fox"}
    line = json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": body})
    (tmp_path / "in.jsonl").write_text(line)
    base, secret = f"http://127.0.0.1:{local.port}/v1", key(local.printed, "inference")
    call = [
        sys.executable,
        "-m",
        "handler.batches",
        "submit",
        str(tmp_path / "in.jsonl"),
        "--watch",
        "--to",
        "out.jsonl",
    ]
    env = os.environ | {"OPENAI_BASE_URL": base, "OPENAI_API_KEY": secret, "PYTHONPATH": str(HOUSE)}
    done = subprocess.run(call, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"custom_id":"1"' in (tmp_path / "out.jsonl").read_text()

    [lines] = re.findall(r"^unset AWS_.*?\n\n", local.printed, re.DOTALL | re.MULTILINE)
    put = (
        "import boto3, os; boto3.client('s3').upload_file('in.jsonl', os.environ['RESULTS_BUCKET'], 'in/local/a.jsonl')"
    )
    script = f'{lines}\npython -c "{put}"'
    shell = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=shell, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with openai.OpenAI(base_url=base, api_key=secret) as client:
        deadline, found = time.monotonic() + 30, ""
        while found != "completed" and time.monotonic() < deadline:
            time.sleep(0.2)
            found = next((each.status for each in client.batches.list() if (each.metadata or {}).get("source")), "")
    assert found == "completed"


def test_a_taken_port_says_how_to_choose_another(local: Local) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "handler.local", "--port", str(local.port)], cwd=HOUSE, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert f"PORT={local.port + 1} make run" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1"])
def test_what_is_no_port_is_refused(port: str) -> None:
    call = [sys.executable, "-m", "handler.local"]
    done = subprocess.run(call, cwd=HOUSE, env=os.environ | {"PORT": port}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "is no port: expected a number from 1 to 65535" in done.stderr


def test_a_wrong_setting_is_named(minilm: Path) -> None:
    call = [sys.executable, "-m", "handler.local", str(minilm), "--port", str(free_port())]
    done = subprocess.run(call, cwd=HOUSE, env=os.environ | {"THREADS": "abc"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: THREADS=abc: expected a whole number, 0 or more\n")


def test_a_missing_layer_says_how_to_build_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "handler.local", "none", "--port", str(free_port())],
        cwd=HOUSE,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "`python -m model_layer build`" in done.stderr


def children(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in (line.split() for line in listed.splitlines())}
    found = {child for child, parent in parents.items() if parent == pid}
    return found.union(*(children(child) for child in found))


def test_ctrl_c_ends_everything_it_started(local: Local) -> None:
    started = children(local.process.pid)
    assert started, shlex.join(["ps", str(local.process.pid)])
    local.process.send_signal(signal.SIGINT)
    local.process.wait(20)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and (left := {pid for pid in started if Path(f"/proc/{pid}").exists()}):
        time.sleep(0.05)
    assert not left
