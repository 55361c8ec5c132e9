import os
from pathlib import Path

import pytest
from hypothesis import settings

from farm.workspace import shipped

os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile("farm", deadline=None)  # a busy machine is no mistake in the code
settings.load_profile("farm")


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A small real checkpoint: the shipped one, or the folder that FARM_TEST_MODEL names."""
    named = os.environ.get("FARM_TEST_MODEL")
    folder = Path(named) if named else shipped() / "models" / "Stable-diffusion" / "tiny-cats"
    assert (folder / "model_index.json").is_file(), f"no checkpoint in {folder}"
    return folder
