"""The benchmark for a GPU, where there is none: the same command, with the CPU's stand-in for attention."""

from pathlib import Path

import pytest

from tests.benchmarks.bound import Peaks, Work
from tests.benchmarks.gpu import bench, table, wheels
from tests.benchmarks.gpu.peers import LOADS
from tests.benchmarks.process import Pass
from tests.benchmarks.rounds import Entry
from tests.benchmarks.table import Result


def test_the_command_compares_both_kinds_of_weights_with_float32(capsys: pytest.CaptureFixture[str]) -> None:
    status = bench.main(["--cpu", "--loads", "1x16", "mixed", "--passes", "2", "--threads", "1"])

    out = capsys.readouterr().out
    assert status == 0, out
    assert "2 layers of 128" in out
    assert "No GPU" in out, "so that nobody takes its figures for one's"
    for load in ("1x16", "mixed"):
        assert f"**{load}**" in out
    for ours in ("**emblet**, fp16", "emblet, 8-bit weights", "emblet, fp16 weights in fp32 arithmetic"):
        rows = [line for line in out.splitlines() if line.startswith(f"| {ours} |")]
        assert len(rows) == 2 + 1, "of each load, and of all"


def entry(peer: str, seconds: float, cosine: float) -> Entry:
    found = Entry(peer, 0, None)  # type: ignore[arg-type]
    found.passes, found.cosines = {0: Pass(seconds, 0.0, 0)}, (cosine, cosine)
    return found


def test_ours_is_held_against_theirs_the_peak_and_float32() -> None:
    work = Work(tokens=1000, products=1e12, attention=0.0)
    entries = [entry("emblet", 0.1, 0.9995), entry("emblet-int8", 0.2, 0.98), entry("sentence-transformers", 0.3, 1.0)]
    result = Result(LOADS["mixed"], work, entries, {0: Peaks(2e13, 2e13)}, {})

    lines = list(table.one_load(result))
    assert "20.0 TFLOP/s" in lines[0]
    [ours] = [line for line in lines if line.startswith("| **emblet**")]
    assert "| 10,000 | 100.0 | 3.00× | 50% | 0.99950 (0.99950) |" in ours
    [wrong] = table.differing(result)
    assert "emblet-int8" in wrong
    assert "0.98000" in wrong
    assert "3.00×" in list(table.all_loads([result]))[-1]


def test_one_of_ours_that_cannot_be_asked_is_a_failure() -> None:
    result = Result(LOADS["mixed"], Work(1, 1.0, 0.0), [], {0: Peaks(1.0, 1.0)}, {"emblet": "no GPU is here"})

    assert list(table.differing(result)) == ["mixed: emblet: no GPU is here"]


def test_a_wheel_is_carried_in_parts_and_none_may_be_missing(tmp_path: Path) -> None:
    carried, whole = tmp_path / "carried", tmp_path / "whole"
    carried.mkdir()
    whole.mkdir()
    content = bytes(range(256)) * 10
    (carried / "some-1.0-py3-none-any.whl").write_bytes(content)

    wheels.split(carried / "some-1.0-py3-none-any.whl", 1000)
    parts = sorted(carried.iterdir())
    [wheel] = wheels.joined(carried, whole)

    assert [part.stat().st_size for part in parts] == [1000, 1000, 560]
    assert (wheel.name, wheel.read_bytes()) == ("some-1.0-py3-none-any.whl", content)
    parts[1].unlink()
    with pytest.raises(SystemExit, match="2 of its 3 parts"):
        wheels.joined(carried, whole)


def test_what_is_fetched_is_what_the_lock_pins() -> None:
    [pin] = [each for each in wheels._pins() if each.startswith("onnxruntime-gpu==")]

    assert pin.count("--hash=sha256:") > 1
    assert pin.splitlines()[0].split("==")[1].split()[0] == "1.31.1"
