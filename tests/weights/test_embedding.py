"""Embeddings of every format, written here as their makers write them."""

import base64
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from farm.weights.embedding import Embedding, read_embedding
from farm.weights.embedding_picture import pseudo_random, read_picture
from farm.weights.reading import read_object
from farm.weights.tensor_info import BadFile

SEVERAL = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
ONE = SEVERAL[:1]


def a1111(vectors: Any) -> dict[str, Any]:
    return {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": vectors},
        "name": "ink",
        "step": 500,
        "sd_checkpoint": "81761151",
        "sd_checkpoint_name": "v1-5-pruned",
    }


def through_a_pickle(tree: Any, folder: Path) -> Any:
    torch.save(tree, folder / "x.pt")
    return read_object(folder / "x.pt")


def through_safetensors(tree: dict[str, torch.Tensor], folder: Path) -> Any:
    save_file(tree, folder / "x.safetensors")
    return read_object(folder / "x.safetensors")


def read(tree: Any) -> Embedding:
    return read_embedding(tree, "in prompts", "a1b2")


@pytest.mark.parametrize("vectors", [ONE, SEVERAL, SEVERAL.half(), torch.nn.Parameter(SEVERAL)])
def test_of_a1111(vectors: torch.Tensor, tmp_path: Path) -> None:
    found = read(through_a_pickle(a1111(vectors), tmp_path))
    assert (found.name, found.key) == ("in prompts", "a1b2")
    assert (found.title, found.step, found.base_model) == ("ink", 500, "v1-5-pruned")
    torch.testing.assert_close(dict(found.vectors), {"clip_l": vectors.detach().float()}, rtol=0, atol=0)
    assert found.count == len(vectors) and found.widths == {"clip_l": 8}
    assert not found.vectors["clip_l"].requires_grad


def test_it_does_not_hold_on_to_the_file() -> None:
    """Whose tensors can be mapped from the disk."""
    tensor = SEVERAL.clone()
    found = read({"emb_params": tensor})
    tensor.zero_()
    assert torch.equal(found.vectors["clip_l"], SEVERAL)


def test_what_a_file_says_otherwise_of_itself_is_left_out() -> None:
    found = read(a1111(ONE) | {"name": 3, "step": "many", "sd_checkpoint_name": None})
    assert (found.title, found.step, found.base_model) == ("", None, "")


def as_of_torch_1_11(vectors: torch.Tensor) -> torch.nn.ParameterDict:
    """It knew its keys by its parameters alone."""
    terms = torch.nn.ParameterDict({"*": vectors})
    del terms.__dict__["_keys"]
    return terms


@pytest.mark.parametrize("terms", [as_of_torch_1_11, lambda vectors: torch.nn.ParameterDict({"*": vectors})])
def test_of_a1111_with_a_parameter_dict(terms: Callable[..., torch.nn.ParameterDict], tmp_path: Path) -> None:
    tree = {"string_to_token": {"*": 265}, "string_to_param": terms(SEVERAL), "name": None, "step": None}
    for found in (read(through_a_pickle(tree, tmp_path)), read(tree)):  # or of those who make it objects
        torch.testing.assert_close(found.vectors["clip_l"], SEVERAL)
        assert (found.title, found.step, found.base_model) == ("", None, "")


def test_of_diffusers(tmp_path: Path) -> None:
    one = read(through_a_pickle({"<cat-toy>": SEVERAL[0]}, tmp_path))
    assert one.title == "<cat-toy>" and torch.equal(one.vectors["clip_l"], SEVERAL[:1])
    several = read(through_safetensors({"<cat-toy>": SEVERAL.contiguous()}, tmp_path))
    assert several.title == "<cat-toy>" and torch.equal(several.vectors["clip_l"], SEVERAL)


def test_emb_params(tmp_path: Path) -> None:
    found = read(through_safetensors({"emb_params": SEVERAL.contiguous()}, tmp_path))
    assert found.title == "" and torch.equal(found.vectors["clip_l"], SEVERAL)


@pytest.mark.parametrize("keys", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")])
def test_pairs_of_sdxl(keys: tuple[str, str], tmp_path: Path) -> None:
    other = torch.randn(3, 12)
    found = read(through_safetensors(dict(zip(keys, (SEVERAL.contiguous(), other))), tmp_path))
    torch.testing.assert_close(dict(found.vectors), {"clip_l": SEVERAL, "clip_g": other})
    assert found.count == 3 and found.widths == {"clip_l": 8, "clip_g": 12}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "is none: there are no vectors in it"),
        ([ONE], "is none"),
        (ONE, "is none: a tensor by itself is an aesthetic embedding, perhaps"),
        ({"a": ONE, "b": ONE}, "is none, or has 2 terms where one is meant: 'a', 'b', …"),
        ({"string_to_param": {"*": ONE, "+": ONE}}, "is none, or has 2 terms"),
        ({"string_to_param": {}}, "is none: there are no vectors in it"),
        ({"string_to_param": 3}, "is none: there are no vectors in it"),
        ({"string_to_param": {"*": [[1.0]]}}, "has list where its vectors should be"),
        ({"*": torch.ones(2, 8, dtype=torch.int64)}, "has torch.int64 where its vectors should be"),
        ({"*": torch.ones(2, 3, 8)}, "is none: its tensor is 2 × 3 × 8, not vectors × channels"),
        ({"*": torch.ones(0, 8)}, "is none: its tensor is 0 × 8, not vectors × channels"),
        ({"*": torch.ones(())}, "is none: its tensor is , not"),
        ({"*": torch.full((1, 8), torch.nan)}, "has numbers that are not finite"),
        ({"clip_l": SEVERAL, "clip_g": ONE}, "not equally many vectors for each text encoder: 1 for clip_g"),
        ({"clip_l": ONE, "clip_g": ONE, "unet.x": ONE}, "for text encoders, and 'unet.x' beside them"),
    ],
)
def test_what_is_no_embedding_is_said_in_one_line(tree: Any, message: str) -> None:
    with pytest.raises(BadFile) as raised:
        read(tree)
    assert message in str(raised.value) and str(raised.value).startswith("the embedding 'in prompts' ")
    assert "\n" not in str(raised.value)


# In pictures


def as_json(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree, default=lambda tensor: {"TORCHTENSOR": tensor.tolist()}).encode()


def picture(width: int = 96, height: int = 64) -> Image.Image:
    image = Image.new("RGB", (width, height), (200, 180, 90))
    ImageDraw.Draw(image).ellipse((20, 10, 70, 50), (30, 60, 200))
    return image


def with_chunk(tree: dict[str, Any]) -> bytes:
    info = PngInfo()
    info.add_text("sd-ti-embedding", base64.b64encode(as_json(tree)).decode())
    picture().save(file := io.BytesIO(), "PNG", pnginfo=info)
    return file.getvalue()


def generator() -> Iterator[int]:
    state = 0
    while True:
        state = (1664525 * state + 1013904223) % 2**32
        yield state % 255


def block(nibbles: list[int], height: int, columns: int) -> Image.Image:
    """Four bits of data in each colour, mixed; the other four are decoration."""
    numbers = generator()
    mixed = [(one ^ (next(numbers) & 0x0F)) | 0x50 for one in nibbles]
    return Image.fromarray(np.array(mixed, np.uint8).reshape(height, columns, 3))


def in_pixels(tree: dict[str, Any], image: Image.Image) -> Image.Image:
    packed = zlib.compress(as_json(tree), 9)
    height, columns = image.height, -(-len(packed) // (3 * image.height))
    packed += packed[: height * columns * 3 - len(packed)]
    low, high = ([one >> shift & 0x0F for one in packed] for shift in (0, 4))
    whole = Image.new("RGB", (image.width + 2 * columns + 2, height))
    whole.paste(block(low, height, columns), (0, 0))
    whole.paste(image, (columns + 1, 0))
    whole.paste(block(high, height, columns), (columns + 1 + image.width + 1, 0))
    return whole


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


PICTURES: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "chunk": with_chunk,
    "pixels": lambda tree: saved(in_pixels(tree, picture()), "PNG"),
    "pixels of a WebP": lambda tree: saved(in_pixels(tree, picture()), "WEBP", lossless=True),
    "pixels, transparent": lambda tree: saved(in_pixels(tree, picture()).convert("RGBA"), "PNG"),
    "pixels, in a black frame": lambda tree: saved(
        Image.fromarray(np.pad(np.asarray(in_pixels(tree, picture())), ((5, 5), (9, 9), (0, 0)))), "PNG"
    ),
    "pixels, a black line in the picture": lambda tree: saved(
        in_pixels(tree, Image.composite(picture(), Image.new("RGB", (96, 64)), Image.linear_gradient("L")
                  .resize((96, 64)).point(lambda level: 0 if 100 < level < 120 else 255))), "PNG"),
}  # fmt: skip


@pytest.mark.parametrize("write", PICTURES.values(), ids=PICTURES)
def test_of_pictures(write: Callable[[dict[str, Any]], bytes]) -> None:
    found = read(read_picture(write(a1111(SEVERAL)), "in prompts"))
    assert (found.title, found.step, found.base_model) == ("ink", 500, "v1-5-pruned")
    torch.testing.assert_close(found.vectors["clip_l"], SEVERAL, rtol=0, atol=0)


def test_the_numbers_are_those_of_a1111() -> None:
    """Its own check of them (modules/textual_inversion/image_embedding.py)."""
    found = pseudo_random(100_100)
    assert found[:8].tolist() == [253, 242, 127, 44, 157, 27, 239, 133]
    assert int(found[100:].sum(dtype=np.int64)) == 12_731_374
    numbers = generator()
    assert found[:999].tolist() == [next(numbers) for _ in range(999)]


def half(image: Image.Image) -> Image.Image:
    """Its outer blocks, cut through: what was packed in them is not all there."""
    return image.crop((0, 0, image.width, image.height // 2))


def bomb() -> bytes:
    return zlib.compress(b" " * (65 * 1024**2), 9)


def with_packed(packed: bytes) -> bytes:
    columns = -(-len(packed) // (3 * 64))
    packed += bytes(64 * columns * 3 - len(packed))
    parts = [block([one >> shift & 0x0F for one in packed], 64, columns) for shift in (0, 4)]
    whole = Image.new("RGB", (98 + 2 * columns, 64))
    for part, place in zip((parts[0], picture(), parts[1]), (0, columns + 1, columns + 98)):
        whole.paste(part, (place, 0))
    return saved(whole, "PNG")


def with_black(*columns: int) -> Image.Image:
    pixels = np.array(picture(97))
    pixels[:, columns] = 0
    return Image.fromarray(pixels)


BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "no embedding": (lambda: saved(picture(), "PNG"), "there is none in this picture"),
    "black": (lambda: saved(Image.new("RGB", (9, 9)), "PNG"), "there is none in this picture"),
    "a black column": (lambda: saved(with_black(48), "PNG"), "there is none in this picture"),
    "black columns": (lambda: saved(with_black(20, 40), "PNG"), "there is none in this picture"),
    "no picture": (lambda: b"\x89PNG nonsense", "cannot be read: UnidentifiedImageError"),
    "cut": (lambda: saved(half(in_pixels(a1111(SEVERAL), picture())), "PNG"), "is cut off, or no embedding"),
    "lossy": (lambda: saved(in_pixels(a1111(SEVERAL), picture()), "WEBP", quality=70), ""),
    "another chunk": (
        lambda: saved(picture(), "PNG", pnginfo=chunk_of("no base64!")), "cannot be read: Error: "),
    "no JSON": (lambda: saved(picture(), "PNG", pnginfo=chunk_of("AAAA")), "cannot be read: JSONDecodeError"),
    "ragged": (
        lambda: saved(picture(), "PNG", pnginfo=chunk_of(encoded('{"a": {"TORCHTENSOR": [[1], [1, 2]]}}'))),
        "cannot be read: ValueError",
    ),
    "nested": (
        lambda: saved(picture(), "PNG", pnginfo=chunk_of(encoded("[" * 100_000))),
        "cannot be read: RecursionError",
    ),
    "bomb": (lambda: with_packed(bomb()), "is cut off, or no embedding"),
}  # fmt: skip


def chunk_of(text: str) -> PngInfo:
    info = PngInfo()
    info.add_text("sd-ti-embedding", text)
    return info


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(("write", "message"), BROKEN.values(), ids=BROKEN)
def test_pictures_without_an_embedding_are_said_in_one_line(write: Callable[[], bytes], message: str) -> None:
    with pytest.raises(BadFile) as raised:
        read_picture(write(), "ink")
    assert message in str(raised.value) and str(raised.value).startswith("the embedding 'ink'")
    assert "\n" not in str(raised.value)


def test_a_picture_of_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(in_pixels(a1111(SEVERAL), picture()), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)
    with pytest.raises(BadFile, match="cannot be read: DecompressionBombWarning"):
        read_picture(content, "ink")
