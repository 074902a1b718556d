"""What the clients' programs share: a job as JSON on stdin, what the library gave as JSON on stdout.

    {"base_url", "calls": [{"key", "model", "texts", "alone", "chunk"}]}
    {"library", "answers": [{"vectors", "indexes", "model", "tokens"}
                            or {"error": {"name", "status", "code", "message"}}]}

The standard library alone: each program runs in the environment of its own library. tests/node/program.mjs is its twin.
"""

import base64
import contextlib
import importlib.metadata
import json
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """`alone`: one text, the way the library takes a single one. `chunk`: how many texts it shall put into a request;
    None is the library's own choice."""

    base_url: str
    key: str
    model: str
    texts: list[str]
    alone: bool
    chunk: int | None


@dataclass(frozen=True)
class Answer:
    """What the caller of the library sees; None where it does not show that. `tokens` are the counts of its usage."""

    vectors: list[Sequence[float]]
    indexes: list[int] | None = None
    model: str | None = None
    tokens: list[int] | None = None


def run(distribution: str, embed: Callable[[Call], Answer]) -> None:
    """Do the job on stdin with `embed`, which may raise what its library raises."""
    job = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):  # some libraries print
        answers = [_told(embed, Call(base_url=job["base_url"], **call)) for call in job["calls"]]
    library = f"{distribution} {importlib.metadata.version(distribution)}"
    json.dump({"library": library, "answers": answers}, sys.stdout)


def _told(embed: Callable[[Call], Answer], call: Call) -> dict[str, Any]:
    try:
        answer = embed(call)
    except Exception as error:
        told = {
            name: getattr(error, attribute, None) for name, attribute in (("status", "status_code"), ("code", "code"))
        }
        return {"error": {"name": type(error).__name__, "message": str(error), **told}}
    return asdict(answer) | {"vectors": [_float32(vector) for vector in answer.vectors]}


def _float32(vector: Sequence[float]) -> str:
    """Exact: a float32 that was decoded from base64, or parsed from its shortest digits, is that float32 again."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
