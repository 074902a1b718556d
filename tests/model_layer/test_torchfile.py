"""Files of torch.save, read without torch."""

import io
import pickle
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from model_layer import torchfile


def fake(module: str, name: str) -> Any:
    """A name to pickle: these tests have no torch."""
    return type(name, (), {"__module__": module, "__reduce__": None})


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None


class Storage:
    def __init__(self, kind: str, key: str, count: int) -> None:
        self.pid = ("storage", TORCH[kind], key, "cpu", count)


class Tensor:
    """What torch.save writes for one: a call of torch's own function."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> Any:
        return TORCH["_rebuild_tensor_v2"], self.arguments


TORCH = {name: fake("torch", name) for name in ("FloatStorage", "BFloat16Storage")} | {
    "_rebuild_tensor_v2": fake("torch._utils", "_rebuild_tensor_v2")
}


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names above, where pickle looks them up while it writes."""
    for module in ("torch", "torch._utils"):
        stand_in = ModuleType(module)
        for name, each in TORCH.items():
            setattr(stand_in, name, each)
        monkeypatch.setitem(sys.modules, module, stand_in)


def save(
    path: Path, tensor: Tensor, raw: bytes, order: bytes = b"little", compression: int = zipfile.ZIP_STORED
) -> Path:
    data = io.BytesIO()
    Pickler(data, protocol=2).dump({"weight": tensor})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("it/data.pkl", data.getvalue(), compression)
        archive.writestr("it/byteorder", order)
        archive.writestr("it/data/0", raw)
    return path


def floats(offset: int, shape: tuple[int, ...], stride: tuple[int, ...], count: int = 6) -> Tensor:
    return Tensor(Storage("FloatStorage", "0", count), offset, shape, stride, False, {})


SIX = np.arange(6, dtype="<f4").tobytes()


def test_a_tensor_is_a_view_of_its_storage(tmp_path: Path) -> None:
    found = torchfile.read(save(tmp_path / "a.pt", floats(1, (2, 2), (1, 3)), SIX))
    assert found["weight"].tolist() == [[1, 4], [2, 5]]


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path: Path) -> None:
    numbers = np.array([1, -2.5, 3.140625], "<f4")
    raw = (numbers.view("<u4") >> 16).astype("<u2").tobytes()
    tensor = Tensor(Storage("BFloat16Storage", "0", 3), 0, (3,), (1,), False, {})
    assert torchfile.read(save(tmp_path / "a.pt", tensor, raw))["weight"].tolist() == numbers.tolist()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (floats(0, (7,), (1,)), "reaches beyond its storage"),
        (floats(5, (2,), (1,)), "reaches beyond its storage"),
        (floats(0, (2, 2), (1, 5)), "reaches beyond its storage"),
        (floats(-1, (2,), (1,)), "reaches beyond its storage"),
        (floats(5, (2,), (-1,)), "reaches beyond its storage"),
        (floats(0, (7,), (1,), count=7), "storage 0 has 24 bytes"),
    ],
    ids=["too many", "too late", "too wide", "before", "backwards", "longer than its bytes"],
)
def test_no_tensor_reaches_beyond_its_numbers(tmp_path: Path, tensor: Tensor, message: str) -> None:
    with pytest.raises(torchfile.TorchFileError, match=message):
        torchfile.read(save(tmp_path / "a.pt", tensor, SIX))


def test_big_endian_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(torchfile.TorchFileError, match="big-endian"):
        torchfile.read(save(tmp_path / "a.pt", floats(0, (6,), (1,)), SIX, order=b"big"))


def encrypted(raw: bytearray, info: zipfile.ZipInfo) -> None:
    for at in (info.header_offset + 6, raw.index(b"PK\1\2") + 8):
        raw[at] |= 1


def bad_deflate(raw: bytearray, info: zipfile.ZipInfo) -> None:
    at = info.header_offset + 30 + len(info.filename)
    raw[at : at + 8] = b"\xff" * 8


@pytest.mark.parametrize("spoil", [encrypted, bad_deflate])
def test_an_archive_that_cannot_be_opened_is_one_clear_sentence(tmp_path: Path, spoil: Any) -> None:
    path = save(tmp_path / "a.pt", floats(0, (6,), (1,)), SIX, compression=zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        spoil(raw, archive.getinfo("it/data.pkl"))
    path.write_bytes(raw)
    with pytest.raises(torchfile.TorchFileError, match=r"Fetch it again\.$"):
        torchfile.read(path)


def test_a_pickle_that_names_anything_else_is_not_run(tmp_path: Path) -> None:
    import os

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps({"weight": Evil()}, protocol=2))
    with pytest.raises(torchfile.TorchFileError, match="which is no tensor"):
        torchfile.read(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
