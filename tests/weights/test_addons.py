from pathlib import Path

from farm.weights.addons import addon_names
from farm.weights.catalog import find_models
from tests.weights.test_catalog import lay


def test_tags_name_files_with_folder_and_suffix_or_without_and_embeddings_are_words(tmp_path: Path) -> None:
    lay(tmp_path, "Lora/a.safetensors", "Lora/below/b.c.pt", "Lora/notes.txt", "LyCORIS/d.safetensors",
        "hypernetworks/h.pt", "embeddings/bad.PT", "embeddings/shown.png")  # fmt: skip
    loras = {"a", "a.safetensors", "below/b.c", "b.c", "b.c.pt", "below/b.c.pt", "d", "d.safetensors"}
    assert addon_names(find_models([tmp_path])) == {
        "lora": loras, "lyco": loras, "hypernet": {"h", "h.pt"}, "embedding": {"bad", "shown"}
    }  # fmt: skip
