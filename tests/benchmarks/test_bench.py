"""`make bench --quick` without its peers: ours against our own float32 layer. Vectors are judged, never a time."""

import ctypes
import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tokenizers import Tokenizer

from model_layer.catalog import MODELS
from model_layer.commands import OUT as LAYERS
from model_layer.sources import open_source
from tests.benchmarks import bench, bound, checkpoint, nocuda, plot, sweep, table
from tests.benchmarks.loads import LOADS, Load, uniform, within
from tests.benchmarks.materials import Materials, gather
from tests.benchmarks.peers import MADE, OURS, PEERS, REFERENCE
from tests.benchmarks.process import HOUSE, Worker
from tests.benchmarks.table import Result

_TEN = Load("ten", "ten texts", (16,) * 4 + (8, 9, 30, 64, 100, 256))


@pytest.fixture(scope="module")
def materials(minilm: Path, minilm_fp32: Path) -> Materials:
    """all-minilm-l6-v2: its layers, as the tests have them."""
    return gather(bench.REAL, None, 1, lambda _: None)


@pytest.fixture(scope="module")
def results(materials: Materials) -> list[Result]:
    plan = bench.Plan((OURS, REFERENCE), (_TEN, uniform(1, 16)), passes=2, budget=60)
    return list(bench.measure(materials, plan))


def test_our_vectors_are_those_of_float32(results: list[Result]) -> None:
    for result in results:
        ours, reference = result.entries
        assert ours.cosines
        assert ours.cosines[1] > table.SAME["int8"]
        assert reference.cosines == pytest.approx((1, 1), abs=1e-5)
    assert not list(table.differing(results))


def test_every_pass_is_measured_and_so_is_its_memory(results: list[Result]) -> None:
    for entry in [entry for result in results for entry in result.entries]:
        assert sorted(entry.passes) == [0, 1]
        assert min(each.seconds for each in entry.passes.values()) > 0
        assert 50e6 < entry.memory < 1e9
        assert entry.cores < 2  # of the one thread that it has


def test_the_table_is_markdown_with_a_row_a_peer(results: list[Result]) -> None:
    lines = list(table.all_loads(results))
    assert [line.split(" | ")[0] for line in lines[2:4]] == [f"| {PEERS[name].title}" for name in (OURS, REFERENCE)]
    assert len({line.count("|") for line in lines}) == 1
    rows = [line for line in table.one_load(results[0]) if line.startswith("|")]
    assert len(rows) == 4
    assert len({line.count("|") for line in rows}) == 1
    assert "1.00×" in rows[2]


def test_other_vectors_are_marked_and_end_in_an_exit_status(
    results: list[Result], materials: Materials, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = results[0].entries[0]
    monkeypatch.setattr(bench, "gather", lambda *_: materials)
    monkeypatch.setattr(bench, "measure", lambda *_: iter(results))
    assert bench.main(["--quick"]) == 0
    monkeypatch.setattr(ours, "cosines", (0.99, 0.9))
    assert bench.main(["--quick"]) == 1
    assert f"† ten: {OURS}: a vector at a cosine of 0.90000" in capsys.readouterr().out


def test_a_peer_that_has_no_environment_or_fails_is_a_row_with_the_reason(
    materials: Materials, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = PEERS["fastembed"]
    monkeypatch.setattr("tests.benchmarks.process.HOUSE", HOUSE)
    monkeypatch.setitem(PEERS, "fastembed", type(nowhere)(nowhere.title, "int8", "nowhere", "fast"))
    monkeypatch.setitem(PEERS, "infinity", type(nowhere)("fails", "fp32", None, "emblet", {"precision": "none"}))
    plan = bench.Plan((OURS, "fastembed", "infinity"), (uniform(1, 16),), passes=1, budget=60)
    [result] = bench.measure(materials, plan)
    assert result.absent == {"fastembed": "no environment .venv-peers/nowhere", "infinity": "KeyError: 'none'"}
    assert "| fails | | KeyError: 'none' |" in "\n".join(table.one_load(result))


def test_a_worker_is_halted_while_others_have_their_turns(materials: Materials, tmp_path: Path) -> None:
    peer = PEERS[OURS]
    with Worker(None, peer.worker, materials.options(peer), tmp_path / "log") as worker:
        stat = Path(f"/proc/{worker.pid}/stat")
        for _ in range(2):
            assert stat.read_text().rpartition(") ")[2][0] == "T"  # stopped by a signal: proc_pid_stat(5)
            worker.give([[101, 102]])
    assert not stat.exists()


def test_loads_are_what_they_are_called(materials: Materials) -> None:
    mixed, short = LOADS["mixed"], LOADS["short"]
    assert (len(mixed.lengths), min(mixed.lengths), max(mixed.lengths), mixed.tokens) == (32, 8, 512, 2868)
    assert (len(short.lengths), min(short.lengths), max(short.lengths)) == (256, 8, 32)
    texts = materials.texter.texts(short.lengths)
    assert tuple(map(len, texts)) == short.lengths
    assert len({tuple(ids) for ids in texts}) == len(texts)
    assert texts == materials.texter.texts(short.lengths)
    assert within(LOADS["1x512"], 256) is None
    assert max(within(mixed, 256).lengths) == 256  # type: ignore[union-attr]


def test_the_bound_is_the_encoder_s_operations_at_the_peaks() -> None:
    work = bound.work(MODELS["bge-m3-seeded"].geometry, [512])
    assert work.products / work.tokens == 24 * 12 * 1024**2 * 2
    assert work.attention / work.tokens == 24 * 4 * 512 * 1024
    peaks = bound.Peaks(int8=700e9, fp32=200e9)
    assert work.rate("int8", peaks) == pytest.approx(1 / (604e6 / 700e9 + 50.3e6 / 200e9), rel=1e-3)
    assert work.rate("fp32", peaks) == pytest.approx(200e9 / 654.3e6, rel=1e-3)


def test_the_checkpoint_s_tokenizer_reads_ids(tmp_path: Path, minilm: Path) -> None:
    model = MODELS[bench.REAL]
    source, _ = open_source(model, LAYERS / "sources")
    checkpoint.write(source, model, tmp_path)
    config: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_layers"]) == ("bert", 6)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("<101> <0> <30521> <102>").ids == [101, 0, 30521, 102]


def test_every_environment_of_a_peer_is_locked() -> None:
    groups = tomllib.loads((HOUSE / "pyproject.toml").read_text())["dependency-groups"]
    locked = {path.stem for path in (HOUSE / "tests/benchmarks/locks").glob("*.lock")}
    assert locked == {name.removeprefix("peer-") for name in groups if name.startswith("peer-")}
    assert locked == {peer.environment for peer in PEERS.values() if peer.environment}
    assert {made.environment for made in MADE.values()} <= locked
    assert {peer.made for peer in PEERS.values() if peer.made} == MADE.keys()


def test_a_sweep_is_plotted(results: list[Result]) -> None:
    [line, *_] = lines = list(sweep.lines(results))
    assert [point[0] for point in line.points] == [16]
    root = ElementTree.fromstring(plot.chart("rates", "tokens", "tokens/s", lines))
    assert len(root.findall("{*}polyline")) == len(lines)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_a_library_that_links_missing_cuda_can_be_loaded(tmp_path: Path) -> None:
    torch = tmp_path / "site-packages/torch/lib"
    torch.mkdir(parents=True)
    missing, loaded = torch / "libcublas.so.13", torch / "libtorch_cuda.so"
    nocuda.compiled(missing, {"libcublas.so.13": {"cublasCreate_v2"}}, {"cublasPlain"})
    code = "int cublasCreate_v2(void), cublasPlain(void); int torch(void) { return cublasCreate_v2() + cublasPlain(); }"
    flags = ["-shared", "-fPIC", "-Wl,-rpath,$ORIGIN", "-x", "c", "-", "-x", "none"]
    subprocess.run(["cc", *flags, str(missing), "-o", str(loaded)], input=code, text=True, check=True)
    missing.unlink()
    with pytest.raises(OSError, match=missing.name):
        ctypes.CDLL(str(loaded), mode=os.RTLD_NOW)
    nocuda.stand_in(torch)
    ctypes.CDLL(str(loaded), mode=os.RTLD_NOW).torch()
