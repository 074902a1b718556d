"""What figures were measured on and of: the processor, how busy it was, and the peers' versions."""

import os
import re
from pathlib import Path

import onnxruntime

_LOCKS = Path(__file__).parent / "locks"
_MATTERS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")  # of /proc/cpuinfo's flags
_NAMED = ("fastembed", "infinity-emb", "nncf", "onnxruntime", "openvino", "sentence-transformers", "torch")


def processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = dict(re.findall(r"^(model name|cpu family|model|flags)\s*: (.*)$", text, re.MULTILINE))
    flags = set(found.get("flags", "").split())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{found.get('model name', 'unknown')} (family {found.get('cpu family')}, model {found.get('model')}), "
        f"{len(os.sched_getaffinity(0))} vCPUs with {', '.join(name for name in _MATTERS if name in flags)}, "
        f"{memory:.0f} GiB"
    )


def busy() -> str:
    """How many processes wanted to run in the last minute, this benchmark's own among them."""
    return f"load average {os.getloadavg()[0]:.1f}"


def versions(environments: set[str]) -> str:
    """Of what is compared: ours, and those that the environments are locked to."""
    lines = [f"ours: onnxruntime {onnxruntime.__version__}"]
    for name in sorted(environments):
        locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (_LOCKS / f"{name}.lock").read_text(), re.MULTILINE))
        lines.append(f"{name}: {', '.join(f'{each} {locked[each]}' for each in _NAMED if each in locked)}")
    return "; ".join(lines)
