"""Layers and repositories at small geometry."""

import shutil
from pathlib import Path

import pytest

from tests.model_layer.small import EASY, REFERENCE, make


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bge-m3 at small geometry, in fp32."""
    return make(REFERENCE, tmp_path_factory.mktemp("small") / "fp32")


@pytest.fixture(scope="session")
def small_int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(REFERENCE, tmp_path_factory.mktemp("small") / "int8", "int8", EASY)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the repository, to be spoilt."""
    return Path(shutil.copytree(REFERENCE, tmp_path / "repository"))
