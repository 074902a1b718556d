"""`python -m handler.batches submit FILE`: a batch of a file's lines, from a terminal."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from handler import settings
from handler.batches import paths
from handler.batches.remote import AwayError, Remote, RemoteError
from handler.contract.batches import ENDPOINT, FINAL, WINDOW

_LOOK_S = 1.0
_PATIENCE = 300  # looks, one after the other, without an answer
_WIDTH = 30
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    config = settings.read()
    parser = argparse.ArgumentParser(prog="python -m handler.batches", description="Batches of a deployment.")
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit", help="begin a batch of a file's lines")
    submit.add_argument("file", type=Path, help="a .jsonl file in OpenAI's format")
    submit.add_argument("--watch", action="store_true", help="stay until it has ended, with a progress bar")
    submit.add_argument("--to", type=Path, metavar="PATH", help="copy its output there, and its errors to PATH.errors")
    submit.add_argument("--url", default=config.openai_base_url, help="…/v1; default: OPENAI_BASE_URL")
    submit.add_argument("--key", default=config.openai_api_key, help="default: OPENAI_API_KEY")
    asked = parser.parse_args(arguments)
    if not asked.url or not asked.key:
        parser.error("which deployment, and whose key? Set OPENAI_BASE_URL and OPENAI_API_KEY, or name them")
    if not asked.url.startswith(("http://", "https://")):
        parser.error(f"{asked.url} is no address: it begins with https:// or http://")
    remote, out = Remote(asked.url, asked.key), sys.stdout
    batch: dict[str, Any] | None = None
    try:
        paths.check(asked.file, asked.to)
        bar = Bar(sys.stderr)
        file_id = remote.upload(asked.file, lambda done, size: bar.show("uploading", done, size, "B"))
        bar.end()
        begin = {"input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": WINDOW}
        batch = remote.call("POST", "/batches", begin)
        print(batch["id"], file=out, flush=True)
        if asked.watch or asked.to:
            batch = watch(remote, batch, bar)
            return _end(remote, batch, asked.to, out)
    except (paths.PathError, RemoteError, OSError) as error:
        print(f"error: {_line(str(error))}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        goes_on = f"; {batch['id']} goes on" if batch else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    return 0


def watch(
    remote: Remote, batch: dict[str, Any], bar: "Bar", sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """The batch once it has ended. Raises RemoteError, and of a deployment that is away not before some minutes."""
    away = 0
    while batch["status"] not in FINAL:
        counts = batch["request_counts"]
        bar.show(batch["status"], counts["completed"] + counts["failed"], counts["total"], "lines")
        sleep(_LOOK_S)
        try:
            batch, away = remote.call("GET", f"/batches/{batch['id']}"), 0
        except (AwayError, OSError):  # OSError: in the middle of an answer
            away += 1
            if away == _PATIENCE:
                raise
    counts = batch["request_counts"]
    bar.show(batch["status"], counts["completed"] + counts["failed"], counts["total"], "lines")
    bar.end()
    return batch


def _end(remote: Remote, batch: dict[str, Any], to: Path | None, out: TextIO) -> int:
    """Say what became of it, and where that is. The exit status."""
    counts = batch["request_counts"]
    tokens = batch["usage"]["input_tokens"]
    print(f"{batch['status']}: {counts['completed']} done, {counts['failed']} failed, {tokens} tokens", file=out)
    for fault in (batch["errors"] or {"data": []})["data"]:
        place = f"line {fault['line']}: " if fault["line"] else ""
        print(f"{place}{fault['code']}: {_line(fault['message'])}", file=sys.stderr)  # noqa: T201
    for what, suffix in (("output", ""), ("error", ".errors")):
        file_id = batch[f"{what}_file_id"]
        if file_id is None:
            continue
        place = f"/v1/files/{file_id}/content"
        if to is not None:
            path = to.with_name(to.name + suffix)
            remote.download(file_id, path)
            place = str(path)
        print(f"{what}: {place}", file=out)
    return 0 if batch["status"] == "completed" else 1


def _line(text: str) -> str:
    """What is printed in one line, and moves no cursor: messages have in them what files have."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


class Bar:
    """Progress on a terminal, redrawn in one line; elsewhere a line for each tenth."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out, clock
        self._what, self._begun, self._first, self._shown = "", 0.0, 0, -1

    def show(self, what: str, done: int, total: int, unit: str) -> None:
        now = self._clock()
        if what != self._what:
            self.end()
            self._what, self._begun, self._first, self._shown = what, now, done, -1
        part = done / total if total else 0.0
        rate = (done - self._first) / (now - self._begun) if now > self._begun else 0.0
        left = f", {_duration((total - done) / rate)} left" if rate and done < total else ""
        told = f"{_number(done)}/{_number(total)} {unit}, {_number(round(rate))}/s{left}" if total else ""
        if self._out.isatty():
            filled = round(part * _WIDTH)
            text = f"{what:12} [{'#' * filled}{' ' * (_WIDTH - filled)}] {part:4.0%} {told}"
            self._out.write(f"\r{text}\x1b[K")
        elif int(part * 10) != self._shown:
            self._shown = int(part * 10)
            self._out.write(f"{what} {part:.0%} {told}\n".replace(" \n", "\n"))
        self._out.flush()

    def end(self) -> None:
        if self._what and self._out.isatty():
            self._out.write("\n")
        self._what = ""


def _number(value: int) -> str:
    return f"{value:,}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.exit(status)
