from pathlib import Path

from farm.weights.addons import addon_names
from farm.weights.catalog import find_models
from tests.weights.test_catalog import lay


def test_prompts_name_files_without_folder_and_suffix(tmp_path: Path) -> None:
    lay(tmp_path, "Lora/a.safetensors", "Lora/below/b.c.pt", "Lora/notes.txt", "LyCORIS/d.safetensors",
        "hypernetworks/h.pt", "embeddings/bad.PT", "embeddings/shown.png")  # fmt: skip
    assert addon_names(find_models([tmp_path])) == {
        "lora": {"a", "b.c", "d"}, "lyco": {"a", "b.c", "d"}, "hypernet": {"h"},
        "embedding": {"bad", "shown"},
    }  # fmt: skip
