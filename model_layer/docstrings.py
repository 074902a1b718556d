"""Sentences that people have written: the docstrings of the Python standard library at hand."""

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])|\n\s*\n")
_SHORTEST, _LONGEST = 30, 400  # characters of a sentence


def sentences(count: int) -> list[str]:
    """So many different ones, spread evenly over the library's modules. Another Python has others."""
    folder = Path(sysconfig.get_path("stdlib"))
    found = list(dict.fromkeys(each for path in sorted(folder.glob("*.py")) for each in _sentences(path)))
    if len(found) < count:
        raise ValueError(f"The docstrings in {folder} have {len(found)} sentences of {count}: it was stripped of them.")
    return [found[index * len(found) // count] for index in range(count)]


def _sentences(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for part in _END.split(ast.get_docstring(node) or ""):
                sentence = " ".join(part.split())
                if _SHORTEST <= len(sentence) <= _LONGEST and sentence[0].isupper() and sentence.endswith("."):
                    yield sentence
