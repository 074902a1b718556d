"""onnxruntime as on a processor with AVX2 alone, at this processor's speed: `python -m tests.benchmarks.haswell MODULE
[ARGUMENT ...]` runs a module so, and `pretend` is for a worker.

onnxruntime chooses its kernels by what the instruction `cpuid` says. In this process's memory each `cpuid` of its
library becomes a breakpoint, whose handler gives the processor's own answers but for leaf 7: of that only what a
Haswell has, which is neither AVX-512 nor VNNI of any kind. Needs `objdump`, which tells instructions from bytes that
look like one (53 of 75 are instructions in onnxruntime 1.31.1).
"""

import ctypes
import importlib.util
import mmap
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np

_CPUID, _BREAKPOINT = bytes.fromhex("0f a2"), bytes.fromhex("cc 90")  # the latter: int3; nop

# void handler(int, siginfo_t *, ucontext_t *). 0x80 to 0x98: rbx, rdx, rax and rcx in glibc's ucontext_t. It returns to
# the nop. Machine code, because Python runs its handlers between two of its own instructions, which is too late.
_HANDLER = bytes.fromhex(
    "53"  # push rbx
    "49 89 d0"  # mov r8, rdx
    "41 8b 80 90 00 00 00"  # mov eax, [r8 + 0x90]
    "41 8b 88 98 00 00 00"  # mov ecx, [r8 + 0x98]
    "41 89 c1"  # mov r9d, eax
    "41 89 ca"  # mov r10d, ecx
    "0f a2"  # cpuid
    "41 83 f9 07"  # cmp r9d, 7
    "75 12"  # jne store
    "31 c0"  # xor eax, eax: it has no further sub-leaf
    "31 c9"  # xor ecx, ecx: among others AVX512_VNNI, VBMI, BITALG
    "31 d2"  # xor edx, edx: among others AMX, AVX512_FP16
    "81 e3 ab 07 00 00"  # and ebx, 0x7ab: FSGSBASE, TSC_ADJUST, BMI1, AVX2, SMEP, BMI2, ERMS, INVPCID
    "45 85 d2"  # test r10d, r10d
    "0f 45 d8"  # cmovnz ebx, eax: sub-leaf 1 has AVX_VNNI and AVX_VNNI_INT8
    "49 89 80 90 00 00 00"  # store: mov [r8 + 0x90], rax
    "49 89 98 80 00 00 00"  # mov [r8 + 0x80], rbx
    "49 89 90 88 00 00 00"  # mov [r8 + 0x88], rdx
    "49 89 88 98 00 00 00"  # mov [r8 + 0x98], rcx
    "5b"  # pop rbx
    "c3"  # ret
)
_SIGTRAP = 5

_page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def pretend() -> None:
    """Have this process's onnxruntime, which must not have been imported yet, take the kernels of a Haswell.

    Raises RuntimeError where it has been, where objdump is absent or tells of other bytes than are there, and where
    the kernels turn out to be others after all.
    """
    if "onnxruntime" in sys.modules:
        raise RuntimeError("onnxruntime has chosen its kernels already")
    library = _library()
    places = _instructions(library)
    _handle()
    ctypes.CDLL(str(library))  # before it is imported: its module asks while it starts
    base = _base(library)
    for place in places:
        _replace(base + place)
    if _product() != 2**15 - 1:
        raise RuntimeError("onnxruntime's product of 8-bit integers is not AVX2's")


def _library() -> Path:
    spec = importlib.util.find_spec("onnxruntime")
    assert spec
    assert spec.submodule_search_locations
    [library] = Path(spec.submodule_search_locations[0]).glob("capi/onnxruntime_pybind11_state*.so")
    return library


def _instructions(library: Path) -> list[int]:
    """Where a `cpuid` is, from the library's begin in memory."""
    call = ["objdump", "--disassemble", "--no-show-raw-insn", "--section=.text", str(library)]
    try:
        with subprocess.Popen(call, stdout=subprocess.PIPE) as process:
            assert process.stdout
            lines = [line for line in process.stdout if b"\tcpuid" in line]
    except FileNotFoundError:
        raise RuntimeError("objdump, of binutils, is absent") from None
    return [int(line.partition(b":")[0], 16) for line in lines]


def _handle() -> None:
    address = ctypes.addressof(ctypes.c_char.from_buffer(_page))
    ctypes.memmove(address, _HANDLER, len(_HANDLER))
    # Without SA_SIGINFO, too, Linux gives a handler on x86-64 its third argument (arch/x86/kernel/signal_64.c).
    signal = ctypes.CDLL(None).signal
    signal.argtypes, signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    signal(_SIGTRAP, address)


def _base(library: Path) -> int:
    """Where this process has the begin of a library."""
    maps = Path("/proc/self/maps").read_text()
    found = re.search(rf"^([0-9a-f]+)-\S+ \S+ 0+ \S+ \S+ +{re.escape(str(library.resolve()))}$", maps, re.MULTILINE)
    assert found
    return int(found[1], 16)


def _replace(address: int) -> None:
    if ctypes.string_at(address, len(_CPUID)) != _CPUID:
        raise RuntimeError("objdump tells of an instruction that is not there")
    page = address & -mmap.PAGESIZE
    length = address + len(_CPUID) - page
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    if protect(page, length, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.memmove(address, _BREAKPOINT, len(_BREAKPOINT))
    protect(page, length, mmap.PROT_READ | mmap.PROT_EXEC)


def _product() -> int:
    """255·127 + 255·127 by onnxruntime: 64,770 with VNNI, and without it what 16 bits hold."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    rows = 16
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "weight"], ["product"])],
        "pair",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, [rows, 2])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [rows, rows])],
        [onnx.numpy_helper.from_array(np.full((2, rows), 127, np.int8), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [product] = session.run(None, {"left": np.full((rows, 2), 255, np.uint8)})
    return int(product[0, 0])


if __name__ == "__main__":
    pretend()
    module, sys.argv = sys.argv[1], sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
