import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from handler.engine.engine import DeadlineError, Engine, NonFiniteVectorError
from handler.engine.layer import open_layer
from handler.settings import Settings
from tests.engine.conftest import cost, load, queued

TEXTS = (Path(__file__).resolve().parents[2] / "model_layer/texts/pairs.txt").read_text().splitlines()[:40]


def vectors(engine: Engine, texts: list[str]) -> npt.NDArray[np.float32]:
    return engine.encode(engine.tokens.encode(texts))


def test_vectors_are_unit_length_float32_rows_in_order(engine: Engine) -> None:
    found = vectors(engine, TEXTS)
    assert found.shape == (40, 384)
    assert found.dtype == np.float32
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6


def test_a_vector_is_bit_identical_alone_in_any_batch_and_in_any_order(engine: Engine) -> None:
    together = vectors(engine, TEXTS)
    order = random.Random(7).sample(range(len(TEXTS)), len(TEXTS))
    shuffled = vectors(engine, [TEXTS[index] for index in order])
    for position, index in enumerate(order):
        alone = vectors(engine, [TEXTS[index]])[0]
        assert alone.tobytes() == together[index].tobytes() == shuffled[position].tobytes(), TEXTS[index]


def test_a_vector_is_bit_identical_while_other_callers_are_served(engine: Engine) -> None:
    expected = vectors(engine, TEXTS)
    wrong: list[int] = []

    def caller(seed: int) -> None:
        order = random.Random(seed).sample(range(len(TEXTS)), len(TEXTS))
        found = {index: vectors(engine, [TEXTS[index]])[0] for index in order}
        wrong.extend(index for index in order if found[index].tobytes() != expected[index].tobytes())

    callers = [threading.Thread(target=caller, args=(seed,)) for seed in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert wrong == []


def test_a_vector_does_not_depend_on_the_number_of_threads(engine: Engine, minilm: Path) -> None:
    one, three = load(minilm, threads=1), load(minilm, threads=3)
    expected = vectors(engine, TEXTS).tobytes()
    assert vectors(one, TEXTS).tobytes() == expected == vectors(three, TEXTS).tobytes()


def test_near_texts_are_near(engine: Engine) -> None:
    cat, kitten, tax = vectors(engine, ["A cat sat on the mat.", "A kitten rests on a rug.", "File your tax return."])
    assert cat @ kitten > cat @ tax + 0.2


class Session:
    """A session whose model answers a value for each text's only token, to see what the engine makes of them."""

    def __init__(self, seconds: float = 0, values: dict[int, float] | None = None) -> None:
        self.seconds, self.values, self.runs = seconds, values or {}, list[list[int]]()
        self.begun = threading.Event()

    def run(self, outputs: list[str], feed: Any, _options: Any = None, /) -> list[npt.NDArray[np.float32]]:
        assert outputs == ["dense"]
        assert feed["lengths"].sum() == len(feed["input_ids"])
        starts = feed["lengths"].cumsum() - feed["lengths"]
        tokens: list[int] = feed["input_ids"][starts].tolist()
        self.runs.append(tokens)
        self.begun.set()
        time.sleep(self.seconds)
        return [np.array([[token, self.values.get(token, 0.5)] for token in tokens], np.float32)]


@pytest.mark.parametrize("together", [0, 64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_vector_never_leaves(engine: Engine, bad: float, together: int) -> None:
    broken = Engine(engine.tokens, Session(values={2: bad}), 2, together)
    with pytest.raises(NonFiniteVectorError) as caught:
        broken.encode([[1], [1], [2], [3]])
    assert caught.value.index == 2


def test_equal_inputs_are_encoded_once(engine: Engine) -> None:
    session = Session()
    found = Engine(engine.tokens, session, 2).encode([[7], [8], [7], [7]])
    assert found[:, 0].tolist() == [7, 8, 7, 7]
    assert session.runs == [[7], [8]]


def test_texts_share_a_run_up_to_a_number_of_tokens_and_a_long_one_runs_alone(engine: Engine) -> None:
    session = Session()
    found = Engine(engine.tokens, session, 2, together=10).encode([[n] * n for n in (3, 4, 3, 9, 50, 5, 5 + 1)])
    assert session.runs == [[50], [9], [6], [5, 4], [3]], "the longest first"
    assert found[:, 0].tolist() == [3, 4, 3, 9, 50, 5, 6]


def test_where_scales_are_by_what_is_in_a_run_each_text_runs_alone(minilm: Path, tmp_path: Path) -> None:
    layer = open_layer(Settings(model_dir=str(minilm)))
    for scales, alone in (("static", False), ("dynamic", True)):
        facts = replace(layer.manifest, activation_scales=scales)
        loaded = Engine.load(replace(layer, manifest=facts), Settings(threads=2))
        assert (cost(loaded, [[1] * 8] * 16) == cost(loaded, [[1] * 8]), alone) == (True, alone), "equal ones are one"
        many = [[token, 2, 3] for token in range(16)]
        assert (cost(loaded, many) == pytest.approx(16 * cost(loaded, many[:1]))) == alone


def test_what_arrives_during_a_run_shares_the_next_one_and_nobody_waits_for_all_of_another(engine: Engine) -> None:
    class Waiting(Session):
        """The first run waits until all have arrived."""

        def run(self, outputs: list[str], feed: Any, options: Any = None, /) -> list[npt.NDArray[np.float32]]:
            found = super().run(outputs, feed, options)
            if len(self.runs) == 1:
                queued(shared._turns, 3)
            return found

    session = Waiting()
    shared = Engine(engine.tokens, session, 2, together=4)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(shared.encode, [[n] for n in range(1, 11)])
        session.begun.wait()
        others = [pool.submit(shared.encode, [[n], [n + 1]]) for n in (20, 30)]
        for each, start in zip(others, (20, 30), strict=True):
            assert each.result()[:, 0].tolist() == [start, start + 1]
        assert first.result()[:, 0].tolist() == list(range(1, 11))
    assert session.runs[0] == [1, 2, 3, 4]
    assert {20, 30} < set(session.runs[1])
    assert session.runs[3:] == [[9, 10]], "the others have theirs by then"
    assert sorted(token for run in session.runs for token in run) == [*range(1, 11), 20, 21, 30, 31]


class Meeting(Session):
    """Runs wait until so many of them are under way."""

    def __init__(self, parties: int, seconds: float = 0) -> None:
        super().__init__(seconds)
        self.barrier = threading.Barrier(parties)

    def run(self, outputs: list[str], feed: Any, options: Any = None, /) -> list[npt.NDArray[np.float32]]:
        self.barrier.wait(10)
        return super().run(outputs, feed, options)


def test_texts_of_one_call_run_at_once_on_several_cores(engine: Engine) -> None:
    session = Meeting(3)
    found = Engine(engine.tokens, session, 2, together=2, at_once=3).encode([[n] for n in range(1, 7)])
    assert found[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert sorted(session.runs) == [[1, 2], [3, 4], [5, 6]]


def test_a_long_text_has_the_memory_for_itself(engine: Engine) -> None:
    class Alone(Session):
        under_way = 0

        def run(self, outputs: list[str], feed: Any, options: Any = None, /) -> list[npt.NDArray[np.float32]]:
            self.under_way += 1
            found = super().run(outputs, feed, options)
            assert self.under_way == 1
            self.under_way -= 1
            return found

    for length, session in ((1000, Meeting(2)), (1100, Alone(seconds=0.02))):
        Engine(engine.tokens, session, 2, together=256, at_once=2).encode([[n] * length for n in range(1, 7)])


def test_of_runs_at_the_same_time_no_second_counts_twice(engine: Engine) -> None:
    shared = Engine(engine.tokens, Meeting(4, seconds=0.1), 2, at_once=4)
    texts = [[n] * 10 for n in range(1, 17)]
    start = time.monotonic()
    shared.encode(texts)
    took = time.monotonic() - start
    assert 0 < shared.pace.seconds(cost(shared, texts)) < 1.3 * took, "and not four times as much"


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_text_whose_runs_fail_fails_its_caller_alone(engine: Engine, at_once: int) -> None:
    """Whoever shares them, and whoever's thread they are run by."""

    class Failing(Session):
        def run(self, outputs: list[str], feed: Any, options: Any = None, /) -> list[npt.NDArray[np.float32]]:
            found = super().run(outputs, feed, options)
            if 31 in feed["input_ids"]:
                raise MemoryError
            return found

    session = Failing(seconds=0.1)
    shared = Engine(engine.tokens, session, 2, together=8, at_once=at_once)
    with ThreadPoolExecutor() as pool:
        calls = [pool.submit(shared.encode, [[n] for n in range(1, 9)])]
        session.begun.wait()
        calls += [pool.submit(shared.encode, [[n], [n + 1]]) for n in (20, 30, 40, 50)]
        outcomes = [type(each.exception()) for each in calls]
    assert outcomes == [type(None), type(None), MemoryError, type(None), type(None)]
    for each, first in zip(calls, (1, 20, None, 40, 50), strict=True):
        if first is not None:
            assert each.result()[:2, 0].tolist() == [first, first + 1]


@pytest.fixture(scope="module")
def slow(seeded: Path) -> Engine:
    """bge-m3's geometry at two layers: 8,192 tokens take seconds."""
    return load(seeded)


LONG = [0, *range(10, 8200), 2]


def test_at_the_deadline_a_run_is_stopped_and_the_next_one_is_whole(slow: Engine) -> None:
    expected = slow.encode([[0, 70, 2]])
    slow.encode([LONG[:100]])
    with pytest.raises(DeadlineError):
        slow.encode([LONG], time.monotonic() + slow.pace.seconds(slow.pace.cost([len(LONG)])) / 8)
    assert slow.encode([[0, 70, 2]], time.monotonic() + 60).tobytes() == expected.tobytes()


def test_at_one_callers_deadline_those_who_share_the_run_still_get_their_vectors(slow: Engine) -> None:
    texts = [[0, *range(10, 20), number, 2] for number in range(70, 90)]
    expected = slow.encode(texts)
    with ThreadPoolExecutor() as pool:
        late = [pool.submit(slow.encode, [LONG[:2000], *texts], time.monotonic() + 0.05 * n) for n in range(1, 5)]
        found = [pool.submit(slow.encode, texts) for _ in range(2)]
        assert all(isinstance(each.exception(), DeadlineError) for each in late)
        assert [each.result().tobytes() for each in found] == [expected.tobytes()] * 2


def test_after_the_deadline_no_further_text_is_begun(engine: Engine) -> None:
    session = Session(seconds=0.05)
    with pytest.raises(DeadlineError):
        Engine(engine.tokens, session, 2).encode([[n] for n in range(100)], time.monotonic() + 0.2)
    assert len(session.runs) < 50


def test_at_the_deadline_nobody_waits_for_a_turn_any_longer(slow: Engine) -> None:
    other = threading.Thread(target=slow.encode, args=([LONG],))
    other.start()
    while not slow._turns._running and other.is_alive():
        time.sleep(0.01)
    with pytest.raises(DeadlineError):
        slow.encode([[0, 70, 2]], time.monotonic() + 0.1)
    assert other.is_alive()
    other.join()


def test_the_pace_is_that_of_the_runs(seeded: Path) -> None:
    """Of long texts as of short ones, attention included, to a factor that a noisy machine makes."""
    fresh = load(seeded)  # no run of it was stopped
    fresh.encode([LONG[:2000]])
    for count, length in ((4, 512), (20, 32), (1, 4000)):
        ids = [LONG[start : start + length] for start in range(count)]
        expected = fresh.pace.seconds(cost(fresh, ids))
        start = time.monotonic()
        fresh.encode(ids)
        assert 1 / 4 < (time.monotonic() - start) / expected < 4


def test_inputs_of_8192_tokens_stay_within_the_stated_memory(seeded: Path) -> None:
    """At two layers, whose activations are as large as 24 layers' (each layer's are freed for the next)."""
    code = """
import numpy
from tests.engine.conftest import load, peak_kib
engine = load(__import__("pathlib").Path(LAYER))
ids = [0, *numpy.random.default_rng(1).integers(10, 250000, 8190).tolist(), 2]
vector = engine.encode([ids])[0]
assert abs(numpy.linalg.norm(vector) - 1) < 1e-5
print(peak_kib())
""".replace("LAYER", repr(str(seeded)))
    house = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=house, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # 1.7 GB are stated for 24 layers, of which 0.27 are the packed weights of the other 22; a mask's score matrix alone
    # would take 4.3.
    assert int(done.stdout) < 1.33e6, f"{int(done.stdout) / 1e6:.2f} GB"


def test_onnxruntime_writes_no_telemetry(minilm: Path, tmp_path: Path) -> None:
    """In a process that nobody told so, with a home folder of its own."""
    code = f"from pathlib import Path; from tests.engine.conftest import load; load(Path({str(minilm)!r}))"
    house = Path(__file__).resolve().parents[2]
    env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], cwd=house, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "elemetry" not in done.stdout + done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("threads", "memory", "expected", "spins"), [(0, 1769, 1, "1"), (0, 885, 1, "0"), (3, 0, 3, None), (1, 0, 1, "1")]
)
def test_the_session_has_the_threads_of_its_share_and_spins_where_it_owns_them(
    minilm: Path, threads: int, memory: int, expected: int, spins: str | None
) -> None:
    config = Settings(model_dir=str(minilm), threads=threads, aws_lambda_function_memory_size=memory)
    options = Engine.load(open_layer(config), config)._turns._sessions.whole.get_session_options()  # type: ignore[attr-defined]
    assert options.intra_op_num_threads == expected
    if spins is not None:
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == spins
