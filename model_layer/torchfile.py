"""Tensors out of a file of `torch.save`, read without torch: the zip archive that it writes since version 1.6.

The pickle inside may name a fixed list of things and nothing else, so that no file can run code (what torch calls
`weights_only`); the numbers are memory-mapped where they lie in the archive.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_PICKLE = 1 << 24  # bytes of the pickle at most: a thousand tensors take a tenth of a megabyte
_LOCAL_HEADER = 30  # bytes before a zip member's name; its lengths are at 26 and 28 (APPNOTE.TXT 4.3.7)
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "BFloat16Storage": "bfloat16",
}


class TorchFileError(Exception):
    """The file is truncated, or not what `torch.save` makes of a dictionary of tensors; the message says which."""


def read(path: Path) -> dict[str, Array]:
    """The tensors of a state dictionary by name, in their own dtypes (bfloat16 as float32).

    Raises TorchFileError, and FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with zipfile.ZipFile(path) as archive:
            [name] = [each for each in archive.namelist() if each.endswith("/data.pkl")]
            if archive.getinfo(name).file_size > _PICKLE:
                raise ValueError("its table of contents is too large")
            order = f"{name.removesuffix('data.pkl')}byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise ValueError("its numbers are big-endian")
            found = _Unpickler(archive.read(name), path, archive, name.removesuffix("data.pkl")).load()
    except Exception as error:  # reading an archive and a pickle that were tampered with can end in almost any
        raise TorchFileError(
            f"{path} is truncated or no file of torch.save (version 1.6 or later): {error}. Fetch it again."
        ) from None
    if not isinstance(found, Mapping) or not all(isinstance(value, np.ndarray) for value in found.values()):
        raise TorchFileError(f"{path} holds something other than named tensors.")
    return dict(found)


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, path: Path, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(io.BytesIO(data))
        self._path, self._archive, self._prefix = path, archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> Array:
        """A storage: a flat array, mapped from the archive, where torch stores members uncompressed."""
        _, dtype, key, _, count = pid
        member = self._archive.getinfo(f"{self._prefix}data/{key}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise pickle.UnpicklingError("its members are compressed")
        kind = np.dtype("<u2" if dtype == "bfloat16" else dtype)
        if member.file_size != count * kind.itemsize:
            raise pickle.UnpicklingError(f"storage {key} has {member.file_size} bytes")
        if not count:
            return np.empty(0, kind)
        with self._path.open("rb") as file:
            file.seek(member.header_offset + 26)
            lengths = np.frombuffer(file.read(4), "<u2")
        start = member.header_offset + _LOCAL_HEADER + int(lengths.sum())
        flat = np.memmap(self._path, kind, "r", start, (count,))
        return (flat.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else flat


def _rebuild(storage: Array, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Array:
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if min((0, offset, *shape, *stride)) < 0 or (0 not in shape and last >= len(storage)):
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
