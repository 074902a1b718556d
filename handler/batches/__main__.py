"""`python -m handler.batches submit FILE | watch BATCH | cancel BATCH`: batches of a deployment, from a terminal."""

import argparse
import re
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
_MEGA = 1_000_000
_PROGRAM = "python -m handler.batches"
_STATUS = (
    "Exit status: 0 where every line is done (of a batch that is not watched: where it has begun); 1 where a line has "
    "failed, the batch has not completed, or something is refused; 2 where this is called wrongly; 130 after Ctrl-C."
)
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    asked = parser.parse_args(arguments)
    if not asked.url or not asked.key:
        parser.error("which deployment, and whose key? Set OPENAI_BASE_URL and OPENAI_API_KEY, or name them")
    if not asked.url.startswith(("http://", "https://")):
        parser.error(f"{asked.url} is no address: it begins with https:// or http://")
    remote, bar, out = Remote(asked.url, asked.key), Bar(sys.stderr), sys.stdout
    batch: dict[str, Any] | None = None
    try:
        if asked.command == "cancel":
            print(remote.call("POST", f"/batches/{asked.batch}/cancel")["status"], file=out)
            return 0
        if asked.command == "submit":
            paths.check(asked.file, asked.to)
            batch = _submit(remote, asked.file, bar)
            print(batch["id"], file=out, flush=True)
            if not asked.watch and not asked.to:
                return 0
        else:
            paths.place(asked.to)
            batch = remote.call("GET", f"/batches/{asked.batch}")
        batch = watch(remote, batch, bar)
        return _end(remote, batch, asked.to, out)
    except (paths.PathError, RemoteError, OSError) as error:
        bar.end()
        print(f"error: {_line(str(error))}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        goes_on = f"; {batch['id']} goes on: {_further(batch)}" if batch else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr)  # noqa: T201
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    config = settings.read()
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="Batches of a deployment.", epilog=_STATUS)
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--url", default=config.openai_base_url, help="…/v1; default: OPENAI_BASE_URL")
    place.add_argument("--key", default=config.openai_api_key, help="default: OPENAI_API_KEY")
    copy = argparse.ArgumentParser(add_help=False)
    copied = "watch, and copy its output to PATH and its errors to PATH.errors, neither of which may be there"
    copy.add_argument("--to", type=Path, metavar="PATH", help=copied)
    commands = parser.add_subparsers(dest="command", required=True)
    told: dict[str, Any] = {"epilog": _STATUS}
    submit = commands.add_parser("submit", help="begin a batch of a file's lines", parents=[copy, place], **told)
    submit.add_argument("file", type=Path, help="a .jsonl file in OpenAI's format")
    submit.add_argument("--watch", action="store_true", help="stay until it has ended, with a progress bar")
    seen = commands.add_parser("watch", help="stay until a batch has ended", parents=[copy, place], **told)
    cancel = commands.add_parser("cancel", help="begin nothing more of a batch", parents=[place], **told)
    for command in (seen, cancel):
        command.add_argument("batch", type=_id, metavar="BATCH", help="its id, which submit prints")
    return parser


def _id(text: str) -> str:
    if not re.fullmatch("batch_[0-9A-Za-z]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no batch's id, which is batch_ and what follows it")
    return text


def _submit(remote: Remote, file: Path, bar: "Bar") -> dict[str, Any]:
    """A new batch of a file's lines. Raises RemoteError and OSError."""
    file_id = remote.upload(file, lambda done, size: bar.show("uploading", done, size, "B"))
    bar.end()
    return remote.call(
        "POST", "/batches", {"input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": WINDOW}
    )


def _further(batch: dict[str, Any]) -> str:
    return f"`{_PROGRAM} watch {batch['id']}` comes back to it, `{_PROGRAM} cancel {batch['id']}` ends it"


def watch(
    remote: Remote, batch: dict[str, Any], bar: "Bar", sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """The batch once it has ended. Raises RemoteError, and of a deployment that is away not before some minutes."""
    away = 0
    while batch["status"] not in FINAL:
        bar.show(batch["status"], *_lines(batch), "lines")
        sleep(_LOOK_S)
        try:
            batch = remote.call("GET", f"/batches/{batch['id']}")
        except (AwayError, OSError) as error:  # OSError: in the middle of an answer
            away += 1
            if away == _PATIENCE:
                raise
            if away == 1:
                bar.say(f"the deployment is away, trying again: {_line(str(error))}")
        else:
            if away:
                bar.say("the deployment is back")
            away = 0
    bar.show(batch["status"], *_lines(batch), "lines")
    bar.end()
    return batch


def _lines(batch: dict[str, Any]) -> tuple[int, int]:
    """How many are done, and of how many; of what has been ended before its time, those that failed are none."""
    counts = batch["request_counts"]
    failed = 0 if batch["status"] in ("cancelled", "expired") else counts["failed"]
    return counts["completed"] + failed, counts["total"]


def _end(remote: Remote, batch: dict[str, Any], to: Path | None, out: TextIO) -> int:
    """Say what became of it, and where that is. The exit status."""
    counts = batch["request_counts"]
    tokens = batch["usage"]["input_tokens"]
    print(f"{batch['status']}: {counts['completed']} done, {counts['failed']} failed, {tokens} tokens", file=out)
    for fault in (batch["errors"] or {"data": []})["data"]:
        place = f"line {fault['line']}: " if fault["line"] else ""
        print(f"{place}{fault['code']}: {_line(fault['message'])}", file=sys.stderr)  # noqa: T201
    for what in ("output", "error"):
        file_id = batch[f"{what}_file_id"]
        if file_id is None:
            continue
        place = f"/v1/files/{file_id}/content"
        if to is not None:
            path = to if what == "output" else paths.errors(to)
            remote.download(file_id, path)
            place = str(path)
        print(f"{what}: {place}", file=out)
    if to is None and (batch["output_file_id"] or batch["error_file_id"]):
        print(f"to copy it: {_PROGRAM} watch {batch['id']} --to PATH", file=out)
    return 0 if batch["status"] == "completed" and not counts["failed"] else 1


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
        size, unit = (_MEGA, "MB") if unit == "B" and total >= _MEGA else (1, unit)
        have, of, each = (_number(value / size, exact=size == 1) for value in (done, total, rate))
        told = f"{have}/{of} {unit}" if total else ""
        if total and rate:
            told += f", {each} {unit}/s"
            told += f", {_duration((total - done) / rate)} left" if done < total else ""
        if self._out.isatty():
            filled = round(part * _WIDTH)
            text = f"{what:12} [{'#' * filled}{' ' * (_WIDTH - filled)}] {part:4.0%} {told}"
            self._out.write(f"\r{text}\x1b[K")
        elif int(part * 10) != self._shown:
            self._shown = int(part * 10)
            self._out.write(f"{what} {part:.0%} {told}\n".replace(" \n", "\n"))
        self._out.flush()

    def say(self, text: str) -> None:
        """A line of its own, after which the bar begins anew."""
        self.end()
        self._out.write(f"{text}\n")

    def end(self) -> None:
        if self._what and self._out.isatty():
            self._out.write("\n")
        self._what = ""


def _number(value: float, *, exact: bool) -> str:
    return f"{value:,.0f}" if exact else f"{value:,.1f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.exit(status)
