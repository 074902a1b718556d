"""torch's Linux wheel, made to run without the three gigabytes of CUDA libraries that it links and a CPU never calls.

`python -m tests.benchmarks.nocuda ENVIRONMENT` puts a stand-in for each that is missing beside torch's own libraries:
every function torch looks for is there, and does nothing. CUDA's runtime must be the real one, since torch asks it
whether there is a device. Needs `cc`, `nm` and `readelf`; does nothing where torch, or its CUDA half, is not installed,
as in the wheels for other systems.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

_CUDA = re.compile(r"lib(cu|nccl|nv)\w*\.so(\.\d+)*")
_FUNCTION = re.compile(r"_*(cu|nccl|nv)\w+")


def stand_in(torch: Path) -> None:
    """Write the missing libraries into torch's folder, each with the functions and versions that are linked against."""
    linked = [path for path in sorted(torch.glob("*.so")) if path.name.startswith(("libtorch", "libc10"))]
    missing: set[str] = set()
    functions: dict[tuple[str, str], set[str]] = defaultdict(set)  # by library and version
    unversioned: set[str] = set()
    for path in linked:
        text = _output("readelf", "--dynamic", "--version-info", "--wide", str(path))
        missing |= {name for name in re.findall(r"NEEDED.*\[(.*)\]", text) if _CUDA.fullmatch(name)}
        library, homes = "", dict[str, str]()  # the library of each version
        for name, version in re.findall(r"File: (\S+)|Name: (\S+) ", text):
            library = name or library
            homes[version] = library
        for symbol in _output("nm", "--dynamic", "--undefined-only", str(path)).split():
            name, _, version = symbol.partition("@")
            if version and _CUDA.fullmatch(homes.get(version, "")):
                functions[homes[version], version].add(name)
            elif not version and _FUNCTION.fullmatch(name):
                unversioned.add(name)
    missing -= {path.name for path in torch.parent.parent.glob("nvidia/*/lib/*")}
    for index, library in enumerate(sorted(missing)):
        versions = {version: names for (home, version), names in functions.items() if home == library}
        compiled(torch / library, versions, set() if index else unversioned)  # those may be in any library


def compiled(library: Path, versions: dict[str, set[str]], unversioned: set[str]) -> None:
    """Write a library with these functions: by the version that callers link, and without one."""
    names = unversioned.union(*versions.values())
    script = library.with_suffix(".map")
    script.write_text("".join(f"{version} {{ {'; '.join(sorted(each))}; }};\n" for version, each in versions.items()))
    versioned = [f"-Wl,--version-script={script}"] if versions else []
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), f"-Wl,-soname,{library.name}", *versioned],
        input="".join(f"void {name}(void) {{}}\n" for name in sorted(names)),
        text=True,
        check=True,
    )
    script.unlink()


def _output(*call: str) -> str:
    return subprocess.run(call, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    for found in Path(sys.argv[1]).glob("lib/python*/site-packages/torch/lib"):
        stand_in(found)
