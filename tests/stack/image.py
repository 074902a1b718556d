"""The Dockerfile without Docker: its stages, carried out in a folder that stands for `/`, and its entry point there.

ARG, ENV, WORKDIR, COPY, RUN and ENTRYPOINT are known, anything else is refused. The base image's Python is an
environment of this machine's own interpreter with nothing installed; its `pip install` is uv's, whose cache holds what
this project's environment was made of. COPY takes what .dockerignore lets through, decided by the code that `sam build`
uses, and strips it of every right of others, as if the checkout had been made under umask 077.
"""

import json
import os
import re
import shlex
import shutil
import stat
import string
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from docker.utils.build import exclude_paths  # type: ignore[import-untyped]

# What Lambda's base image sets, as far as the Dockerfile or the function uses it.
BASE_ENV = {"PATH": "/var/lang/bin:/usr/bin:/bin", "LD_LIBRARY_PATH": "/var/lang/lib"}
BASE_ENV |= {"LAMBDA_TASK_ROOT": "/var/task", "LANG": "en_US.UTF-8"}
_HOST_PATH = "/usr/bin:/bin"
# A path in a shell line: a slash that begins a word.
_ABSOLUTE = re.compile(r"""(?<=[\s"'=])/(?=\w)""")
_PIP = """#!/bin/sh
[ "$1" = install ] || exit 2
shift
for each; do shift; [ "$each" = --no-cache-dir ] || set -- "$@" "$each"; done
set -- --quiet --cache-dir '{cache}' --link-mode hardlink --compile-bytecode --python '{python}' "$@"
'{uv}' pip install --offline "$@" 2>/dev/null || exec '{uv}' pip install "$@"
"""


@dataclass(frozen=True)
class Instruction:
    keyword: str
    text: str


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: tuple[Instruction, ...]


def stages(dockerfile: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name, in its order; one that begins with another has that one's instructions."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, Stage] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, text = line.strip().partition(" ")
        if keyword == "FROM":
            base, _, name = text.partition(" AS ")
            begun = found.get(base, Stage(name, base, ()))
            found[name] = Stage(name, begun.base, begun.instructions)
        elif keyword:
            stage = found[name]
            found[name] = Stage(name, stage.base, (*stage.instructions, Instruction(keyword, text.strip())))
    return found


def ignored(context: Path) -> list[str]:
    """The patterns of .dockerignore."""
    lines = [line.strip() for line in (context / ".dockerignore").read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def sent(context: Path, patterns: Sequence[str]) -> set[str]:
    """Relative paths of what a build sends to Docker, folders too."""
    return {str(path) for path in exclude_paths(str(context), list(patterns))}


@dataclass
class Image:
    """A stage carried out. `env` and `workdir` are written as in the image; `outside` tells where they lie here."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: dict(BASE_ENV))
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()
    log: str = ""

    def outside(self, path: str) -> Path:
        """Where an image's path lies on this machine."""
        return self.root / PurePosixPath(self.workdir, path).relative_to("/")

    def environment(self) -> dict[str, str]:
        """The image's environment, its paths being this machine's."""
        found = {
            name: ":".join(str(self.outside(part)) if part.startswith("/") else part for part in value.split(":"))
            for name, value in self.env.items()
        }
        return found | {"PATH": f"{found['PATH']}:{_HOST_PATH}"}


def carry_out(
    stage: Stage,
    root: Path,
    context: Path,
    *,
    patterns: Sequence[str],
    earlier: Mapping[str, Image] | None = None,
    arguments: Mapping[str, str] | None = None,
) -> Image:
    """Carry out a stage in the empty folder `root`. `patterns` are those of .dockerignore, `earlier` the stages that
    COPY --from may name, `arguments` the build's. CalledProcessError, with what it wrote, where a RUN fails."""
    image = Image(root)
    before = os.umask(0o022)  # Docker's own
    try:
        _base(image)
        _carry_out(stage, image, context, sent(context, patterns), earlier or {}, dict(arguments or {}))
    finally:
        os.umask(before)
    return image


def declared(stage: Stage) -> Image:
    """What a stage says of its image, with nothing carried out."""
    image = Image(Path("/"))
    for each in stage.instructions:
        if each.keyword in ("ENV", "WORKDIR", "ENTRYPOINT"):
            _declare(each, image, string.Template(each.text).substitute(image.env))
    return image


def unprivileged(command: Sequence[str]) -> list[str]:
    """The command as Lambda's user: uid 993, no groups, no capabilities. Only root can become that; others stay who
    they are. One capability is kept where this machine's interpreter lies in a folder closed to others: to read any
    file; then only a look at the modes tells what Lambda's user could not read."""
    if os.getuid() != 0:
        return list(command)
    home = Path(sys.base_prefix)
    closed = any(not folder.stat().st_mode & stat.S_IXOTH for folder in (home, *home.parents))
    capabilities = "-all,+dac_read_search" if closed else "-all"
    setpriv = shutil.which("setpriv") or "setpriv"
    user = ["--reuid", "993", "--regid", "990", "--clear-groups", "--no-new-privs"]
    limits = [f"--{kind}={capabilities}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return [setpriv, *user, *limits, *command]


def _carry_out(
    stage: Stage, image: Image, context: Path, visible: set[str], earlier: Mapping[str, Image], given: dict[str, str]
) -> None:
    for each in stage.instructions:
        text = each.text if each.keyword == "RUN" else string.Template(each.text).substitute({**given, **image.env})
        match each.keyword:
            case "ARG":
                name, _, default = text.partition("=")
                given.setdefault(name, default)
            case "ENV" | "WORKDIR" | "ENTRYPOINT":
                _declare(each, image, text)
                image.outside(".").mkdir(parents=True, exist_ok=True)
            case "COPY":
                origin, sources, target = _copy(text)
                for source in sources:
                    if origin is None:
                        _copy_context(context, source, visible, image, target, several=len(sources) > 1)
                    else:
                        _copy_stage(earlier[origin].outside(source), image.outside(target))
            case "RUN":
                _run(image, text, given)
            case _:
                raise NotImplementedError(f"{each.keyword} {text}")


def _declare(instruction: Instruction, image: Image, text: str) -> None:
    match instruction.keyword:
        case "ENV":
            image.env |= dict(word.split("=", 1) for word in shlex.split(text))
        case "WORKDIR":
            image.workdir = str(PurePosixPath(image.workdir, text))
        case "ENTRYPOINT":
            image.entrypoint = tuple(json.loads(text))


def _base(image: Image) -> None:
    """What the base image brings: a Python, its pip, the folders."""
    for folder in ("/var/task", "/opt", "/tmp"):
        image.outside(folder).mkdir(parents=True)
    image.outside("/tmp").chmod(0o1777)
    lang = image.outside("/var/lang")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", lang], check=True)
    pip, uv = lang / "bin/pip", Path(sys.executable).with_name("uv")
    # This machine's cache, of which the image's own variables would lead away.
    cache = subprocess.run([uv, "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    pip.write_text(_PIP.format(uv=uv, python=lang / "bin/python", cache=cache))
    pip.chmod(0o755)


def _copy(text: str) -> tuple[str | None, list[str], str]:
    """The stage a COPY takes from (None: the context), its sources, its target."""
    *words, target = shlex.split(text)
    sources = [word for word in words if not word.startswith("--")]
    match [word for word in words if word.startswith("--")]:
        case []:
            return None, sources, target
        case [flag] if flag.startswith("--from="):
            return flag.removeprefix("--from="), sources, target
    raise NotImplementedError(f"COPY {text}")


def _run(image: Image, line: str, arguments: Mapping[str, str]) -> None:
    command = _ABSOLUTE.sub(f"{image.root}/", line)
    host = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=image.outside("."),
        env={**host, **arguments, **image.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    image.log += f"RUN {line}\n{done.stdout}"
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, line, f"\n{image.log}")


def _copy_stage(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def _copy_context(context: Path, source: str, visible: set[str], image: Image, target: str, *, several: bool) -> None:
    """COPY of one source: a folder's contents into the target, a file into a target that ends in `/`, else to it."""
    named = PurePosixPath(source)
    wanted = [PurePosixPath(path) for path in visible if PurePosixPath(path).is_relative_to(named)]
    if not wanted:
        raise FileNotFoundError(f"COPY {source}: not in the build's context")
    place = image.outside(target)
    if not (context / named).is_dir():
        if several and not target.endswith("/"):
            raise NotImplementedError(f"COPY of several files to {target}, which is no folder")
        place = place / named.name if target.endswith("/") else place
    for path in sorted(wanted):
        here, there = context / path, place / path.relative_to(named)
        if here.is_dir():
            there.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(here, there)
            there.chmod(here.stat().st_mode & stat.S_IRWXU)
