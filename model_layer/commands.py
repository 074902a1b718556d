"""`build`, `verify` and `inspect`: make a model layer, prove it, show it."""

import argparse
import resource
import signal
import sys
import time
from pathlib import Path

from handler.engine import manifest
from model_layer import build, cl100k, inspect, verify
from model_layer.catalog import MODELS
from model_layer.checkpoint import SourceError
from model_layer.sources import open_source

OUT = Path(__file__).parent / "out"


def main(arguments: list[str] | None = None) -> int:
    """0: done; 1: a build or a check failed, with the reason on stderr; 2: the call's words are off."""
    asked = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what a build has begun is cleared away
    try:
        return int(asked.call(asked))
    except (SourceError, build.BuildError, manifest.LayerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_layer", description="Model layers: make one, prove it, show it."
    )
    calls = parser.add_subparsers(required=True, metavar="build|verify|inspect")

    make = calls.add_parser("build", help="make the layer of a model")
    make.set_defaults(call=_build, parser=make)
    make.add_argument("model", choices=sorted(MODELS))
    make.add_argument("--target", choices=build.PRECISIONS, default="cpu", help="what is to run it (default cpu)")
    make.add_argument(
        "--precision",
        choices=build.PRECISIONS["cpu"],
        help="of one for a CPU; mixed: int8, but as few matrices in float32 as make it exact enough, by measurement "
        "(default int8)",
    )
    make.add_argument(
        "--weights",
        choices=build.PRECISIONS["cuda"],
        help="of one for CUDA, whose products are fp16; int8: half the memory (default fp16)",
    )
    make.add_argument("--layers", type=_positive, metavar="N", help="a shallower one, of a seeded model")
    make.add_argument("--from", dest="local", type=Path, metavar="DIR", help="the model's files, instead of a download")
    make.add_argument(
        "--out", type=Path, metavar="DIR", help=f"where to put it (default {OUT.name}/ beside the builder)"
    )
    make.add_argument(
        "--cl100k",
        choices=("tiktoken", "litellm", "none"),
        default="tiktoken",
        help="whence the vocabulary of OpenAI's token ids: fetched by tiktoken, out of litellm's wheel, or not at all",
    )
    make.add_argument("--if-absent", action="store_true", help="do nothing where a complete one lies already")

    check = calls.add_parser("verify", help="hash every file, check every fact, measure the parity again")
    check.set_defaults(call=_verify)
    check.add_argument("layer", type=_layer, help="a folder, or the name of one in out/")

    show = calls.add_parser("inspect", help="what a layer is, whence, how exact, how large")
    show.set_defaults(call=_inspect)
    show.add_argument("layer", type=_layer, help="a folder, or the name of one in out/")
    return parser


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError("expected a whole number, 1 or more")
    return int(text)


def _layer(text: str) -> Path:
    return Path(text) if Path(text).is_dir() else OUT / text


def _build(asked: argparse.Namespace) -> int:
    model, name, target = MODELS[asked.model], asked.model, asked.target
    given, other = (asked.precision, asked.weights) if target == "cpu" else (asked.weights, asked.precision)
    if other is not None:
        asked.parser.error("--precision is for --target cpu, --weights for --target cuda")
    default = build.PRECISIONS[target][0]
    precision = given or default
    if asked.layers is not None:
        if model.weights != "seeded":
            raise SourceError(f"{model.id} has the layers it was trained with; --layers is for seeded models.")
        model, name = model.with_layers(asked.layers), f"{name}-{asked.layers}"
    if asked.local is not None and model.weights != "seeded" and not asked.local.is_dir():
        raise SourceError(f"--from {asked.local} is no folder that is there.")
    suffixes = ["cuda"] * (target == "cuda") + [precision] * (precision != default)
    folder = asked.out or OUT / "-".join([name, *suffixes])
    with_cl100k = asked.cl100k != "none"
    if asked.if_absent and build.is_complete(folder, model, precision, with_cl100k=with_cl100k, target=target):
        print(f"model layer {folder}: there already")
        return 0
    build.check(model, folder)  # before anything is fetched
    start = time.monotonic()

    def progress(step: str) -> None:
        print(f"  {time.monotonic() - start:5.1f} s  {step}", flush=True)

    print(f"model layer {folder}: building {model.id}, {precision} for {target}", flush=True)
    downloads = OUT / "sources"
    vocabulary = _cl100k(asked.cl100k, downloads)  # first: it is small, and the model may be 2.3 GB
    origin = open_source(model, downloads, asked.local)
    build.build(model, origin, precision, folder, progress, vocabulary, target)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"  {time.monotonic() - start:5.1f} s  done, peak memory {peak:.1f} GB")
    return _inspect(argparse.Namespace(layer=folder))


def _cl100k(whence: str, downloads: Path) -> bytes | None:
    if whence == "none":
        return None
    return cl100k.from_tiktoken() if whence == "tiktoken" else cl100k.from_wheel(downloads)


def _verify(asked: argparse.Namespace) -> int:
    found, figures = verify.faults(asked.layer)
    for fault in found:
        print(f"FAULT {fault}", file=sys.stderr)
    if figures:
        print(f"{asked.layer}: {inspect.parity(figures)}")
    if not found:
        print(f"{asked.layer}: every file and figure is as its manifest says")
    return 1 if found else 0


def _inspect(asked: argparse.Namespace) -> int:
    for line in inspect.lines(asked.layer, manifest.load(asked.layer)):
        print(line)
    return 0
