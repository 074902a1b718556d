"""How onnxruntime packs int8 matrices, as far as builder and function must agree on it. Standard library only."""

from collections.abc import Collection
from pathlib import Path

# Processors that pack alike: with AVX2, whether or not they have AVX-512 and VNNI, and without AMX. Byte for byte, by
# tests/model_layer/test_quantize.py.
FEATURES, _OTHERWISE = ("avx2",), "amx_int8"

# What a packed graph says of itself: token ids of a text, and float32 of its vector as base64.
PROBE_IDS, PROBE_VECTOR = "probe_ids", "probe_vector"

_CPUINFO = Path("/proc/cpuinfo")


def reads(features: Collection[str], cpuinfo: Path = _CPUINFO) -> bool:
    """Whether this processor reads matrices that were packed on one with these features."""
    try:
        with cpuinfo.open() as lines:
            flags = next((line for line in lines if line.startswith("flags")), "").split()
    except OSError:
        return False
    return set(features) <= set(flags) and _OTHERWISE not in flags
