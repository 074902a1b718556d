"""The graph whose matrices are packed already: the same vectors, where they are read as they were packed."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from handler.engine import packing, session
from handler.engine.engine import Engine
from handler.engine.layer import Layer, open_layer
from handler.engine.manifest import GRAPH, PACKED, WEIGHTS
from handler.engine.packing import PROBE_IDS
from handler.settings import Settings
from tests.engine.conftest import HOUSE, single
from tests.model_layer.small import EASY, REFERENCE, make

AVX2, AVX512, AMX = "fpu sse4_1 avx avx2", "fpu avx avx2 avx512f avx512_vnni avx_vnni", "fpu avx2 avx512_vnni amx_int8"


def opened(folder: Path) -> Layer:
    return open_layer(Settings(model_dir=str(folder)))


def plainly(layer: Layer) -> Layer:
    """The layer, as if it had been packed for another version."""
    return replace(layer, manifest=replace(layer.manifest, onnxruntime="1.0.0"))


def is_packed(found: Any) -> bool:
    return PROBE_IDS in found.get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("name", ["minilm", "seeded"])
def test_vectors_are_the_same_to_the_last_bit(name: str, threads: int, request: pytest.FixtureRequest) -> None:
    layer = opened(request.getfixturevalue(name))
    packed, plain = (session.open_session(each, threads, spin=False, packed=True) for each in (layer, plainly(layer)))
    assert is_packed(packed)
    assert not is_packed(plain)

    for tokens in (2, 3, 17, 130, 250):
        ids = np.random.default_rng(tokens).integers(1000, 20000, tokens)
        feed = {"input_ids": ids, "lengths": np.array([tokens - 1, 1])}
        one, two = (each.run(["dense", "token_states"], feed) for each in (packed, plain))
        assert all((left == right).all() for left, right in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("flags", "reads"), [(AVX2, True), (AVX512, True), (AMX, False), ("fpu sse4_1 avx", False), ("", False)]
)
def test_processors_that_pack_alike_are_known_by_their_flags(flags: str, reads: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: avx2\n" * 2)

    assert packing.reads(packing.FEATURES, tmp_path / "cpuinfo") is reads


def test_a_machine_that_says_nothing_of_its_processor_packs_its_own(tmp_path: Path) -> None:
    assert not packing.reads(packing.FEATURES, tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("Features\t: asimd\n")
    assert not packing.reads(packing.FEATURES, tmp_path / "cpuinfo")


def test_another_processor_packs_its_own(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "reads", lambda _: False)

    assert not is_packed(session.open_session(opened(minilm), 1, spin=False, packed=True))
    assert session.open_packed(opened(minilm), 1, spin=False) is None, "which no second session may"


def test_matrices_that_this_machine_reads_otherwise_are_noticed(
    minilm: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layer = Path(shutil.copytree(minilm, tmp_path / "layer"))
    [array] = [each for each in onnx.load(layer / PACKED, load_external_data=False).graph.initializer
               if each.name == "encoder.layer.3.intermediate.dense"]  # fmt: skip
    [place] = [each.value for each in array.external_data if each.key.startswith("prepacked")]
    start, length = map(int, place.partition("|")[2].split(";")[:2])
    weights = bytearray((layer / WEIGHTS).read_bytes())
    weights[start : start + length] = bytes(reversed(weights[start : start + length]))
    (layer / WEIGHTS).write_bytes(weights)

    with caplog.at_level(logging.ERROR):
        found: Any = session.open_session(opened(layer), 1, spin=False, packed=True)

    assert not is_packed(found)
    assert f"{layer / GRAPH} packs its own" in caplog.text
    plain = session.open_session(plainly(opened(minilm)), 1, spin=False, packed=True)
    feed = {"input_ids": np.array([101, 2000, 2001, 102]), "lengths": np.array([4])}
    assert (found.run(["dense"], feed)[0] == plain.run(["dense"], feed)[0]).all()


def test_where_matrices_are_packed_otherwise_a_layer_is_built_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "reads", lambda _: False)

    layer = make(REFERENCE, tmp_path / "layer", "int8", EASY)

    assert not (layer / PACKED).exists()
    assert opened(layer).manifest.cpu == ()


COST = """
import re, sys
from handler.engine.session import open_session
from tests.engine.test_packing import opened, plainly, Path
layer = opened(Path(sys.argv[1]))
def anonymous():
    return int(re.search(r"^Anonymous: +(\\d+)", Path("/proc/self/smaps_rollup").read_text(), re.M)[1])
before = anonymous()
kept = open_session(plainly(layer) if sys.argv[2] == "plain" else layer, 1, spin=False, packed=True)
print(anonymous() - before)
"""


def test_packed_matrices_stay_in_the_page_cache(seeded: Path, measured: Callable[[str], None]) -> None:
    def mib(form: str) -> float:
        call = [sys.executable, "-c", COST, str(seeded), form]
        return int(subprocess.run(call, cwd=HOUSE, capture_output=True, text=True, check=True).stdout) / 1024

    packed, plain = mib("packed"), mib("plain")
    measured(f"a session has {packed:.0f} MiB to itself with packed matrices, {plain:.0f} MiB without (two layers)")
    assert packed < plain / 2


@pytest.mark.parametrize(("runtime", "packed"), [("127.0.0.1:9001", False), ("", True)])
def test_lambda_whose_cold_start_pays_for_each_byte_reads_none_twice(minilm: Path, runtime: str, packed: bool) -> None:
    config = Settings(model_dir=str(minilm), aws_lambda_runtime_api=runtime, threads=2)

    sessions = Engine.load(opened(minilm), config)._turns._sessions
    assert is_packed(sessions.whole) is packed
    beside = single(sessions)
    assert (beside is not None) is packed, "elsewhere it would be a second copy"
    assert beside is None or is_packed(beside)
