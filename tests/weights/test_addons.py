from farm.weights.addons import find_addons


def test_files_are_found_by_their_names(tmp_path):
    for name in ("Lora/a.safetensors", "Lora/below/b.c.pt", "Lora/notes.txt", "hypernetworks/h.pt",
                 "embeddings/bad.PT", "embeddings/shown.png"):  # fmt: skip
        path = tmp_path / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = find_addons([tmp_path / "models", tmp_path / "nowhere"])
    assert found["lora"] == {"a", "b.c"} == found["lyco"]
    assert found["hypernet"] == {"h"} and found["embedding"] == {"bad", "shown"}
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "easy.safetensors").touch()
    assert find_addons([tmp_path / "models"])["embedding"] == {"bad", "shown", "easy"}
