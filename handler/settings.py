"""Every environment variable the function reads, typed and documented where it is declared.

`python -m handler.settings` lists them with their defaults; `read()` is what the other rooms call.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import cache
from typing import Any, get_type_hints

MIB = 1 << 20
_DECIMAL = re.compile(r"\d{1,9}(\.\d{1,12})?", re.ASCII)  # exact in a ledger record, which holds 38 digits


class SettingError(ValueError):
    """A variable is missing or has a value that its type does not admit; the message says which and what it may be."""


def _setting(default: Any, about: str, *choices: str, most: int | None = None) -> Any:
    return field(default=default, metadata={"about": about, "choices": choices, "most": most})


@dataclass(frozen=True)
class Settings:
    """A field `model_dir` is the variable MODEL_DIR. Types: str, int, Decimal; an empty variable counts as absent."""

    function_role: str = _setting(
        "embed",
        "What the function is for: `embed` answers the URL; `work` executes the shards of batches; `ledger` sums what "
        "the ledger's stream brings, does the hourly work on it, and plans and finishes batches, without a model.",
        "embed",
        "work",
        "ledger",
    )
    model_dir: str = _setting("/opt/model", "Folder of the model layer to serve.")
    model_check: str = _setting(
        "sizes",
        "What the start compares with the layer's manifest: the files' sizes, or their SHA-256 too (reads every byte).",
        "sizes",
        "hashes",
    )
    require_gpu: int = _setting(
        0, "1 where the host promises a GPU: a start without one, or with a layer for a CPU, then fails.", most=1
    )
    model_aliases: str = _setting("", "Further names of the model, `alias=id` separated by commas.")
    threads: int = _setting(0, "Threads of one inference; 0 takes the container's share of the CPUs.")
    empty_input: str = _setting(
        "embed", 'What "" in the input gets: a vector at 0 tokens, or a 400.', "embed", "reject"
    )
    token_arrays: str = _setting(
        "cl100k",
        "What token ids in the input are: cl100k_base's, which OpenAI's clients send, and are made text again; the "
        "model's own; or a 400. A layer without cl100k_base's file rejects them.",
        "cl100k",
        "model",
        "reject",
    )
    truncate: str = _setting(
        "false",
        "Whether a text that is too long loses its end where the request does not say; otherwise it is a 400.",
        "false",
        "true",
    )
    max_queue_seconds: int = _setting(
        30, "Seconds that a request may have to wait for its turn, by measurement; one that would wait longer is 503."
    )
    max_queue_requests: int = _setting(
        128,
        "Requests that the engine has at once, whatever they cost; one more is 503 at once. Where Lambda sends an "
        "environment many calls at once, fewer than it sends: else Lambda's own 429 comes first.",
    )
    max_run_seconds: int = _setting(
        300,
        "Seconds of a run, of up to 256 tokens (16,384 on a GPU) or one text, after which the engine counts as hung "
        "and a process that has several callers ends, so that its host starts another; 0 for never. 8,192 tokens of "
        "bge-m3 take a minute on two vCPUs.",
    )
    drain_seconds: int = _setting(
        8,
        "Seconds that a plain HTTP server, told to end by SIGTERM, gives what it has begun (`handler/entry.sh`); then "
        "what is not embedded yet is dropped, and what is embedded has three more for its record. So long a process of "
        "Managed Instances goes on as well.",
    )
    request_seconds: int = _setting(
        600, "Seconds that a plain HTTP server gives a request, as many as SDKs wait; on Lambda it is its Timeout's."
    )
    max_body_bytes: int = _setting(
        64 * MIB,
        "Largest request body that is read; a larger one is 413. 300,000 tokens take 2 MB, or 8 where all is escaped: "
        "less is enough for them. While 8 MiB of nothing but brackets are parsed, a plain server may stand still for a "
        "second, and for eight with as many times as much.",
    )
    max_bodies_bytes: int = _setting(
        64 * MIB,
        "Bytes of all request bodies in memory, each from its arrival until it is answered; one for which there is no "
        "room waits for MAX_QUEUE_SECONDS, and is then 503. MAX_BODY_BYTES at least. While it is parsed, JSON of texts "
        "or ids takes 3 to 30 times its bytes; of many lists and objects 64 times, but of one body at a time.",
    )
    keys_table: str = _setting("", "DynamoDB table of API keys (SHA-256 of each). Required.")
    usage_table: str = _setting("", "DynamoDB table of usage records, the ledger. Required.")
    entries_table: str = _setting(
        "",
        "DynamoDB table of Idempotency-Keys, remembered 48 hours. Without it a request that has one gets a 503.",
    )
    ledger_queue: str = _setting(
        "",
        "URL of the SQS queue that keeps a usage record which DynamoDB has not taken within a second; without it the "
        "caller gets a 503 and no vectors. The role `ledger` corrects no month while it holds any.",
    )
    retry_window: int = _setting(
        600,
        "Seconds by which an SDK's attempts at one call may lie apart and still be billed once; 3600 at most, because "
        "each minute of them is a query of a retry's.",
        most=3600,
    )
    results_bucket: str = _setting(
        "", "S3 bucket for what does not fit an answer; without it such a request is a 400 that says what would fit."
    )
    jobs_table: str = _setting(
        "",
        "DynamoDB table of files and batches. Without it there are none; with it RESULTS_BUCKET is needed, which holds "
        "what is in them.",
    )
    plans_queue: str = _setting("", "URL of the SQS queue of batches to be planned, closed and finished.")
    messages_queue: str = _setting("", "URL of the SQS queue of messages that ask for embeddings.")
    dead_messages_queue: str = _setting(
        "", "URL of the SQS queue for messages that nobody can be told of, each with its reason."
    )
    result_destinations: str = _setting(
        "",
        "Where answers to messages may be sent beside RESULTS_BUCKET: `s3://bucket/prefix/` and URLs of SQS queues, "
        "separated by commas.",
    )
    objects_queue: str = _setting("", "URL of the SQS queue that S3 tells of objects in `in/` of RESULTS_BUCKET.")
    shards_queue: str = _setting("", "URL of the SQS queue of the shards of batches.")
    batch_max_requests: int = _setting(0, "Lines that a batch may have; 0 for any number. OpenAI: 50,000.")
    batch_max_inputs: int = _setting(0, "Inputs that all its lines may have; 0 for any number. OpenAI: 50,000.")
    batch_max_bytes: int = _setting(0, "Bytes that its file may have; 0 for any number. OpenAI: 200 MB.")
    batch_max_line_bytes: int = _setting(
        8 * MIB, "Largest line that is read; a larger one gets a 413 of its own. 300,000 tokens take 2 MB, 8 escaped."
    )
    batch_shard_bytes: int = _setting(
        400_000,
        "Bytes of a batch's file, four to a token, that are executed in one call, in a third of its time at most; of a "
        "long text each counts for more, as its attention costs. What has 2,048 inputs is a shard in any case, and so "
        "is a line that alone has more.",
    )
    batch_shards_at_once: int = _setting(
        16, "Shards of a batch that wait or are under way at once, so that other batches have a share of the function."
    )
    limits_table: str = _setting(
        "",
        "DynamoDB table of what keys and accounts with limits have used. Without it they get a 503, others are served.",
    )
    prices_table: str = _setting(
        "", "DynamoDB table of prices with the times they begin; without it, or a row in it, the next three say them."
    )
    rollups_table: str = _setting(
        "", "DynamoDB table of usage per minute, hour and day, which reports are read from. Without it they are a 503."
    )
    input_per_mtok: Decimal = _setting(Decimal("0.01"), "Price of a million input tokens, in USD.")  # noqa: RUF009
    batch_factor: Decimal = _setting(Decimal("0.5"), "What a batch's tokens cost, as a part of that price.")  # noqa: RUF009
    price_effective_at: str = _setting(
        "", "When that price began, such as 2026-11-01T00:00:00Z; without it, when the model layer was built."
    )
    cors_origins: str = _setting(
        "*", "Pages that may call from a browser: `*`, `none`, or their origins separated by commas."
    )
    metrics: str = _setting(
        "off", "Whether a plain HTTP server has `/metrics`, which is public; Lambda never has it.", "on", "off"
    )
    openai_base_url: str = _setting("", "Deployment that `python -m handler.batches` works with, such as https://…/v1.")
    openai_api_key: str = _setting("", "Key that it works with.")
    log_level: str = _setting("INFO", "Least severe log line that is written.", "DEBUG", "INFO", "WARNING", "ERROR")
    port: int = _setting(8080, "Port of the plain HTTP server (`handler/entry.sh` outside Lambda).")
    aws_lambda_runtime_api: str = _setting("", "Set by Lambda: present where the function runs under its runtime.")
    aws_lambda_max_concurrency: int = _setting(
        0, "Set by Lambda Managed Instances: calls that they send an environment at once, which one process takes all."
    )
    aws_lambda_function_memory_size: int = _setting(0, "Set by Lambda, in MB: 1,769 of them are one vCPU.")
    aws_lambda_function_name: str = _setting("", "Set by Lambda: by it one function's metrics are told from others'.")
    aws_region: str = _setting(
        "", "Region of the tables, set by Lambda; elsewhere AWS_DEFAULT_REGION or a profile will do too."
    )
    aws_endpoint_url: str = _setting("", "Another address for all of AWS's services: MiniStack's, in `make run`.")

    @property
    def has_many_callers(self) -> bool:
        """Whether the process has several requests at once; on ordinary Lambda it has one, whose timeout ends both."""
        return not self.aws_lambda_runtime_api or bool(self.aws_lambda_max_concurrency)


def parse(environ: Mapping[str, str]) -> Settings:
    """Settings of an environment; SettingError names every variable that is wrong, all at once."""
    values: dict[str, Any] = {}
    wrong: list[str] = []
    types = get_type_hints(Settings)
    for each in fields(Settings):
        name, choices, most = each.name.upper(), each.metadata["choices"], each.metadata["most"]
        text = environ.get(name, "").strip()
        if not text:
            continue
        if choices and text not in choices:
            wrong.append(f"{name}={text}: expected one of {', '.join(choices)}")
        elif types[each.name] is int and not (text.isascii() and text.isdigit()):
            wrong.append(f"{name}={text}: expected a whole number, 0 or more")
        elif most is not None and int(text) > most:
            wrong.append(f"{name}={text}: expected {most} at most")
        elif types[each.name] is Decimal and not _DECIMAL.fullmatch(text):
            wrong.append(f"{name}={text}: expected a decimal number, 0 or more, such as 0.01")
        else:
            values[each.name] = types[each.name](text)
    if wrong:
        raise SettingError("; ".join(wrong))
    return Settings(**values)


@cache
def read() -> Settings:
    """The process's own settings, read once."""
    return parse(os.environ)


def required(settings: Settings, *names: str) -> None:
    """Raise SettingError unless every one of these fields has a value."""
    if missing := [name.upper() for name in names if not getattr(settings, name)]:
        raise SettingError(f"{', '.join(missing)}: not set. `python -m handler.settings` says what each is for.")


def describe() -> str:
    """The manual: one paragraph a variable, in order of declaration."""
    lines = []
    for each in fields(Settings):
        default = f" (default {each.default})" if each.default != "" else ""
        choices = f" One of {', '.join(each.metadata['choices'])}." if each.metadata["choices"] else ""
        lines.append(f"{each.name.upper()}{default}\n    {each.metadata['about']}{choices}")
    return "\n".join(lines)


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` has seen enough: no traceback of that
    print(describe())  # noqa: T201
