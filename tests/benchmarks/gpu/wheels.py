"""onnxruntime-gpu for a machine that reaches no package index: fetched here, in parts of a size that can be carried.

    python -m tests.benchmarks.gpu.wheels [--python 3.12] [--part-mb 60] [--into wheels]

The version is that of requirements.gpu.lock, whose hashes are checked. With it come those of NVIDIA's libraries that
the lock has, if `--cuda` asks for them: torch's wheel for CUDA 13 has brought its own.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.benchmarks.process import HOUSE

FOLDER = HOUSE / "wheels"
_LOCK = HOUSE / "requirements.gpu.lock"
_PART = ".part"


def fetch(into: Path, python: str, part: int, names: tuple[str, ...]) -> None:
    """Put the wheels of these packages of the lock into the folder, each in parts of so many bytes at most."""
    into.mkdir(parents=True, exist_ok=True)
    wanted = into / "wanted.txt"
    wanted.write_text("".join(each for each in _pins() if each.partition("==")[0] in names))
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(17, 35)]
    call = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    call += ["--python-version", python, "--implementation", "cp", *platforms, "--dest", str(into), "-r", str(wanted)]
    subprocess.run(call, check=True)
    wanted.unlink()
    for wheel in into.glob("*.whl"):
        split(wheel, part)


def split(wheel: Path, part: int) -> None:
    """Replace a file by its parts, `name.part00of05` and so on."""
    total = -(-wheel.stat().st_size // part)
    with wheel.open("rb") as whole:
        for number in range(total):
            wheel.with_name(f"{wheel.name}{_PART}{number:02}of{total:02}").write_bytes(whole.read(part))
    wheel.unlink()


def joined(folder: Path, into: Path) -> list[Path]:
    """The wheels whose parts lie in a folder, put together. Raises SystemExit where parts are missing."""
    parts = defaultdict[str, list[Path]](list)
    for path in sorted(folder.glob(f"*.whl{_PART}*")):
        parts[path.name.partition(_PART)[0]].append(path)
    found = []
    for name, each in parts.items():
        total = int(each[0].name.rpartition("of")[2])
        if len(each) != total:
            sys.exit(f"{name}: {len(each)} of its {total} parts are in {folder}")
        (into / name).write_bytes(b"".join(path.read_bytes() for path in each))
        found.append(into / name)
    return found


def installed(folder: Path = FOLDER) -> dict[str, str]:
    """An environment in which the carried wheels come before all else, and CUDA's libraries are found; they are
    installed beside their parts, the first time. With none carried, this Python's own onnxruntime-gpu is meant."""
    site = folder / "site"
    if folder.is_dir() and not site.is_dir():
        with tempfile.TemporaryDirectory(dir=folder) as made:
            if wheels := joined(folder, Path(made)):
                options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(site)]
                subprocess.run([sys.executable, "-m", "pip", "install", *options, *map(str, wheels)], check=True)
    libraries = [str(each) for path in (site, *map(Path, sys.path)) for each in sorted(path.glob("nvidia/*/lib"))]
    return os.environ | {
        "PYTHONPATH": _path(str(site) if site.is_dir() else None, os.environ.get("PYTHONPATH")),
        "LD_LIBRARY_PATH": _path(*libraries, os.environ.get("LD_LIBRARY_PATH")),
    }


def _path(*folders: str | None) -> str:
    return os.pathsep.join(filter(None, folders))


def _pins() -> list[str]:
    """The lock's entries, with their hashes."""
    entries: list[str] = []
    for line in _LOCK.read_text().splitlines(keepends=True):
        if line.startswith(" "):
            entries[-1] += line
        else:
            entries.append(line)
    return entries


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu.wheels", description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=FOLDER, metavar="DIR", help=f"default {FOLDER}")
    parser.add_argument("--python", default="3.12", metavar="VERSION", help="of the machine with the GPU; default 3.12")
    parser.add_argument("--part-mb", type=int, default=60, metavar="N", help="of the largest part; default 60")
    parser.add_argument("--cuda", action="store_true", help="NVIDIA's libraries too, 0.5 GB more")
    asked = parser.parse_args(arguments)
    nvidia = tuple(name for name in (each.partition("==")[0] for each in _pins()) if name.startswith("nvidia-"))
    fetch(asked.into, asked.python, asked.part_mb * 1_000_000, ("onnxruntime-gpu", *(nvidia if asked.cuda else ())))
    for path in sorted(asked.into.iterdir()):
        print(f"{path}  {path.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
