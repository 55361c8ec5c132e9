from pathlib import Path

import pytest

from tests.weights.original_files import Tiny, tiny, write


@pytest.fixture(scope="session")
def sd1() -> Tiny:
    return tiny("sd1")


@pytest.fixture(scope="session")
def sd2() -> Tiny:
    return tiny("sd2")


@pytest.fixture(scope="session")
def sdxl() -> Tiny:
    return tiny("sdxl")


@pytest.fixture(scope="session")
def sd1_file(sd1: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(sd1, tmp_path_factory.mktemp("sd1") / "cats.safetensors")


@pytest.fixture(scope="session")
def sd2_file(sd2: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(sd2, tmp_path_factory.mktemp("sd2") / "dogs.safetensors")
