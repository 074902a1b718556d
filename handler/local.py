"""`python -m handler.local [MODEL]`: the whole service on one machine, with MiniStack as the stand-in for AWS.

Starts MiniStack (from .venv-ministack, because it pins botocore), makes the tables of template.yaml in it, an inference
and an admin key, prints how to call it and the operator's tools, and serves on 127.0.0.1:PORT. Ctrl-C ends all of it;
what MiniStack held is gone then.
"""

import argparse
import os
import shlex
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from handler import ministack, tables
from handler.engine.manifest import LayerError
from handler.ministack import MiniStackError
from handler.settings import SettingError

if TYPE_CHECKING:
    from handler.service import Service

HOUSE = Path(__file__).resolve().parent.parent
LAYERS = HOUSE / "model_layer/out"
ACCOUNT = "local"
_GRACE_S = 5  # what a request in flight gets after Ctrl-C
_RECORD_S = 3.0  # and then, where it is embedded, its record
_BGE_M3 = """
bge-m3: `make run MODEL=bge-m3` fetches its 2.3 GB from the Hugging Face hub and builds its layer in some minutes.
Without the hub, `.venv/bin/python -m model_layer build bge-m3 --cl100k litellm --from DIR` takes a copy of its
repository. Where int8 turns out not to be exact enough, PRECISION=mixed or `--precision mixed` builds."""


class LocalError(Exception):
    """Something that the local service needs is missing; the message says how to get it."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m handler.local", description="The whole service on this machine.")
    parser.add_argument(
        "model", nargs="?", default="all-minilm-l6-v2", help="a layer in model_layer/out, or its folder"
    )
    parser.add_argument("--port", type=_port, default=os.environ.get("PORT") or "8000", help="default: PORT, or 8000")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that what was started is ended
    try:
        _serve(asked.model, asked.port)
    except (LocalError, MiniStackError, SettingError, LayerError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: expected a number from 1 to 65535")
    return int(text)


def _serve(model: str, port: int) -> None:
    layer = Path(model) if Path(model).is_dir() else LAYERS / model
    if not (layer / "manifest.json").is_file():
        raise LocalError(f"There is no model layer in {layer}: `python -m model_layer build` makes one.")
    with _listen(port) as listener, ministack.started() as endpoint:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]  # a profile or an endpoint of the shell's would lead elsewhere
        os.environ |= {
            "NO_PROXY": "127.0.0.1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",  # the one that MiniStack knows: of presigned requests it looks at the key
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
            "MODEL_DIR": str(layer),
            "KEYS_TABLE": "Keys",
            "USAGE_TABLE": "Usage",
            "LIMITS_TABLE": "Limits",
            "PRICES_TABLE": "Prices",
            "ENTRIES_TABLE": "Entries",
            "ROLLUPS_TABLE": "Rollups",
            "JOBS_TABLE": "Jobs",
        }
        tables.make()
        os.environ |= tables.make_jobs()
        import uvicorn

        from handler import logs, settings
        from handler.api.app import create_app
        from handler.api.protocol import Http11
        from handler.billing.recount import Recount
        from handler.events.follow import Follower
        from handler.events.stream import Stream
        from handler.service import Service

        logs.configure(settings.read())
        service = Service.open(settings.read())
        service.load()  # first, so that what is printed works when it is pasted
        app = create_app(service)
        # What the stack's second function does: usage is in the rollups a second after its request.
        recount = Recount.open(settings.read())
        stream = Stream(recount, ThreadPoolExecutor(1), "local")
        follower = Follower(settings.read().usage_table, stream)
        threading.Thread(target=follower.run, name="books", daemon=True).start()
        _begin_batches(service)
        _announce(port)
        config = uvicorn.Config(
            app, http=Http11, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE_S
        )
        try:
            uvicorn.Server(config).run([listener])
        finally:
            service.close(_RECORD_S)


def _begin_batches(service: "Service") -> None:
    """What the stack's functions do with the queues of batches."""
    from handler import settings
    from handler.events import passes
    from handler.events.poll import Poller
    from handler.events.shards import Pointers

    config = settings.read()
    takes = {
        config.plans_queue: passes.plans(config, service.ledger),
        config.shards_queue: passes.shards(config, service),
        config.objects_queue: passes.objects(config),
    }
    for url, take in takes.items():
        threading.Thread(target=Poller(url, Pointers(take)).run, name="batches", daemon=True).start()


def _listen(port: int) -> socket.socket:
    """The port, taken before anything is started; who calls before the server runs waits for it."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise LocalError(
            f"127.0.0.1:{port} cannot be had ({error.strerror}). Choose another: PORT={port + 1} make run"
        ) from None
    return listener


def _announce(port: int) -> None:
    from handler import store
    from handler.billing.keytable import KeyTable
    from handler.engine import manifest

    keys, facts = KeyTable(store.dynamodb, os.environ["KEYS_TABLE"]), manifest.load(Path(os.environ["MODEL_DIR"]))
    inference, _ = keys.create(ACCOUNT, "inference", "make run")
    admin, _ = keys.create(ACCOUNT, "admin", "make run")
    meaning = "" if facts.weights == "real" else "\nIts weights are random: ITS VECTORS MEAN NOTHING."
    print(  # noqa: T201
        f"""
Serving {facts.id} ({facts.dimensions} dimensions, {facts.context} tokens, {facts.precision}).{meaning}
{"" if facts.id == "bge-m3" else _BGE_M3}

inference key  {inference}
admin key      {admin}

Paste into a shell:

curl http://127.0.0.1:{port}/v1/embeddings \\
  -H 'Authorization: Bearer {inference}' \\
  -H 'Content-Type: application/json' \\
  -d '{{"model": "{facts.id}", "input": "the quick brown fox"}}'

or into {_python()}:

from openai import OpenAI
client = OpenAI(base_url="http://127.0.0.1:{port}/v1", api_key="{inference}")
answer = client.embeddings.create(model="{facts.id}", input=["the quick brown fox", "jumps over"])
print(len(answer.data), len(answer.data[0].embedding), answer.usage)

or, for the operator's tools, into another shell:

unset AWS_PROFILE AWS_SESSION_TOKEN
{_exports()}

The stand-in for AWS is MiniStack on {os.environ["AWS_ENDPOINT_URL"]}.
Ctrl-C ends the service and all it started; what MiniStack held is gone then.
""",
        flush=True,
    )


def _exports() -> str:
    """By what the tools find this interpreter, the stand-in, its tables and its bucket, as lines of a shell."""
    names = sorted(os.environ)
    aws = [name for name in names if name.startswith("AWS_")]
    places = [name for name in names if name.endswith(("_TABLE", "_BUCKET"))]
    lines = (" ".join(f"{name}={shlex.quote(os.environ[name])}" for name in part) for part in (aws, places))
    path = shlex.quote(str(Path(sys.executable).parent))
    return "\n".join(f"export {line}" for line in (f"PATH={path}:$PATH", *lines))


def _python() -> str:
    """This interpreter, as one would type it here: it has the SDK."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # and not wait for the threads of requests that Ctrl-C has ended
