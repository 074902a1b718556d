from pathlib import Path

import pytest

from handler.engine.engine import Engine
from handler.engine.layer import open_layer
from handler.settings import Settings


def load(folder: Path, threads: int = 0) -> Engine:
    config = Settings(model_dir=str(folder), threads=threads)
    return Engine.load(open_layer(config), config)


@pytest.fixture(scope="session")
def engine(minilm: Path) -> Engine:
    return load(minilm)
