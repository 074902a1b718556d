"""Texts of which fp16 has no finite vector, once more in fp32 arithmetic."""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from handler.engine import engine as engines
from handler.engine import gpu, session
from handler.engine.calls import DeadlineError
from handler.engine.engine import Engine, NonFiniteVectorError
from handler.engine.finite import Finite
from handler.engine.layer import open_layer
from handler.engine.manifest import GRAPH, LayerError
from handler.engine.session import RunOptions
from handler.engine.targets import CUDA
from handler.settings import Settings
from model_layer import run

NAN = float("nan")


class Session:
    """One whose vectors are [first token, tokens], but NaN where the first token is one of `broken`; `fails`: what a
    run raises."""

    def __init__(self, *broken: int, fails: Exception | None = None) -> None:
        self.broken, self.fails, self.runs = broken, fails, list[list[list[int]]]()

    def run(
        self, outputs: list[str], feed: dict[str, npt.NDArray[np.int64]], _: RunOptions | None = None, /
    ) -> list[npt.NDArray[np.float32]]:
        assert outputs == ["dense"]
        texts = np.split(feed["input_ids"], feed["lengths"].cumsum()[:-1])
        self.runs.append([each.tolist() for each in texts])
        if self.fails:
            raise self.fails
        found = np.array([[each[0], len(each)] for each in texts], np.float32)
        found[[each[0] in self.broken for each in texts], 1] = NAN
        found.flags.writeable = False
        return [found]


def through(engine: Engine, fp16: Session, fp32: Session) -> Engine:
    return Engine(engine.tokens, Finite(fp16, lambda: fp32), 2, CUDA.together, target=CUDA)


def test_vectors_that_are_not_finite_are_made_again(engine: Engine) -> None:
    fp16, fp32 = Session(2, 5), Session()
    found = through(engine, fp16, fp32).encode([[1, 1], [2, 2, 2], [3], [5, 5]])
    assert found.tolist() == [[1, 2], [2, 3], [3, 1], [5, 2]]
    assert len(fp16.runs) == 1, "the others' run counts"
    assert fp32.runs == [[[2, 2, 2], [5, 5]]]


def test_each_is_made_again_alone_where_that_fails_together(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    class Small(Session):
        def run(self, outputs: list[str], feed: Any, options: RunOptions | None = None, /) -> Any:
            if feed["lengths"].sum() > 3:
                raise RuntimeError("out of memory")
            return super().run(outputs, feed, options)

    fp16, fp32 = Session(2, 3, 5), Small()
    with pytest.raises(NonFiniteVectorError) as caught:
        through(engine, fp16, fp32).encode([[1, 1], [2] * 3, [3] * 4, [5] * 2])
    assert caught.value.index == 2
    assert fp32.runs == [[[2, 2, 2]], [[5, 5]]]
    assert caplog.messages == ["4 tokens that fp16 has no finite vector of fail in fp32: out of memory"]


def test_it_is_opened_when_it_is_first_needed_and_once(engine: Engine) -> None:
    opened, fp32 = list[Session](), Session()

    def open_fp32() -> Session:
        opened.append(fp32)
        return fp32

    mended = Engine(engine.tokens, Finite(Session(2), open_fp32), 2, CUDA.together, target=CUDA)
    mended.encode([[1], [3]])
    assert not opened
    mended.encode([[2]])
    mended.encode([[1], [2]])
    assert opened == [fp32]


def test_what_fp32_has_no_vector_of_either_is_that_inputs_error(engine: Engine) -> None:
    with pytest.raises(NonFiniteVectorError) as caught:
        through(engine, Session(2, 3), Session(3)).encode([[1], [2], [3]])
    assert caught.value.index == 2


def test_where_fp32_fails_the_input_has_no_vector_and_the_engine_goes_on(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    mended = through(engine, Session(2), Session(fails=RuntimeError("out of memory")))
    with caplog.at_level(logging.ERROR), pytest.raises(NonFiniteVectorError):
        mended.encode([[1], [2, 2]])
    assert caplog.messages == ["2 tokens that fp16 has no finite vector of fail in fp32: out of memory"]
    assert mended.encode([[1]]).tolist() == [[1, 1]]
    assert mended._turns.failing == 0


def test_where_there_is_no_room_for_it_that_is_said_once(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    def no_room() -> Session:
        raise LayerError("onnxruntime cannot load it: out of memory")

    mended = Engine(engine.tokens, Finite(Session(2), no_room), 2, CUDA.together, target=CUDA)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            with pytest.raises(NonFiniteVectorError):
                mended.encode([[2]])
    assert caplog.messages == [
        "texts that fp16 has no finite vector of stay without: onnxruntime cannot load it: out of memory"
    ]


def test_its_run_too_ends_at_the_deadline(engine: Engine) -> None:
    class Stopped(Session):
        def run(self, _outputs: list[str], _feed: Any, options: RunOptions | None = None, /) -> Any:
            assert options
            options.terminate = True
            raise RuntimeError("Exiting due to terminate flag being set to true")

    mended = through(engine, Session(2), Stopped())
    with pytest.raises(DeadlineError):
        mended.encode([[2]], deadline=time.monotonic() + 0.2)


def test_a_gpus_layer_comes_with_it(
    seeded_cuda: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole way, through sessions of the stand-in: the layer's graph in fp16, whose first vector is struck out, and
    the one in fp32 arithmetic."""
    real = run.session(seeded_cuda / GRAPH)

    class Overflown:
        def run(self, outputs: list[str], feed: Any, options: RunOptions | None = None, /) -> Any:
            found = real.run(outputs, feed, options)
            found[0][0] = NAN
            return found

    monkeypatch.setattr(gpu, "find", lambda: gpu.Device("NVIDIA L4", (8, 9), 24 << 30))
    monkeypatch.setattr(engines, "open_session", lambda *_, **__: Overflown())
    monkeypatch.setattr(session, "_onnxruntime", lambda: None)
    monkeypatch.setattr(session, "_options", lambda *_, **__: None)
    monkeypatch.setattr(gpu, "open_session", lambda _, graph, *__, **___: run.session(graph))
    monkeypatch.setattr(engines, "TARGETS", {"cuda": replace(CUDA, warm=0)})
    config = Settings(model_dir=str(seeded_cuda))
    served = Engine.load(open_layer(config), config)
    texts = ["the quick brown fox", "over the lazy dog, and that is all there is to say about it"]
    found = served.encode(served.tokens.encode(texts))
    assert np.isfinite(found).all()
    assert np.einsum("ij,ij->i", found, run.embed(seeded_cuda, texts)).min() > 0.9999
    assert not caplog.messages
