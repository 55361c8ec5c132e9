import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from farm.workspace import shipped

os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile("farm", deadline=None)  # a busy machine is no mistake in the code
settings.load_profile("farm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs a card where there is none."""
    needs_card = [item for item in items if "card" in item.keywords]
    if needs_card and not torch.cuda.is_available():
        config.hook.pytest_deselected(items=needs_card)
        items[:] = [item for item in items if "card" not in item.keywords]


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """A small real checkpoint: the shipped one, or the folder that FARM_TEST_MODEL names."""
    named = os.environ.get("FARM_TEST_MODEL")
    folder = Path(named) if named else shipped() / "models" / "Stable-diffusion" / "tiny-cats"
    assert (folder / "model_index.json").is_file(), f"no checkpoint in {folder}"
    return folder
