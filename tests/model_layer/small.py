"""bge-m3 at small geometry: its repository as transformers and torch made it (tests/reference/make_bge_m3.py)."""

from dataclasses import replace
from pathlib import Path
from typing import cast

from model_layer import build
from model_layer.catalog import MODELS, Geometry, Model, Repository, Texts, Thresholds
from model_layer.sources import open_source

HOUSE = Path(__file__).resolve().parents[2]
REFERENCE = HOUSE / "tests/reference/bge_m3_small"
ORIGIN = cast(Repository, MODELS["bge-m3"].origin)
SMALL = replace(
    MODELS["bge-m3"],
    origin=replace(ORIGIN, files=dict.fromkeys(ORIGIN.files)),  # nobody pins these
    geometry=Geometry(4001, hidden=32, heads=2, intermediate=64, layers=2, positions=8194, first_position=2,
                      token_types=1, norm_epsilon=1e-5),
    calibration=Texts(("calibration",), 20),
    verification=Texts(("pairs",), 40),
)  # fmt: skip

# With thresholds that its random weights reach in int8.
EASY = replace(SMALL, thresholds=Thresholds(0.5, 0.1, None, None))


def make(folder: Path, out: Path, precision: str = "fp32", model: Model = SMALL, target: str = "cpu") -> Path:
    build.build(model, open_source(model, out.parent, folder), precision, out, lambda _: None, None, target)
    return out
