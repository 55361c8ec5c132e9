import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from farm.cell import Settings
from farm.errors import FarmError
from farm.init_images import InitImage
from farm.init_pixels import made_ready
from farm.starting import InitPicture, init_pictures


def image_of(name: str, color: str, size: tuple[int, int] = (40, 20)) -> tuple[str, InitImage]:
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return hashlib.sha256(file.getvalue()).hexdigest(), InitImage(name, file.getvalue())


def test_each_picture_is_made_ready_for_each_size_that_cells_have():
    (teal, one), (gold, other) = image_of("teal.png", "teal"), image_of("gold.png", "gold")
    cells = [
        Settings("m", "", width=width, height=64, init_image=image, seed=seed)
        for width in (64, 128)
        for image in (teal, gold, "")
        for seed in (1, 2)
    ]
    wanted = init_pictures(cells)
    assert sum(picture.bytes_of_pixels for picture in wanted) == 2 * 3 * 64 * (64 + 128)
    ready = made_ready(wanted, {teal: one, gold: other})
    assert set(ready) == {InitPicture(image, width, 64) for image in (teal, gold) for width in (64, 128)}
    pixels = ready[InitPicture(gold, 128, 64)]
    assert pixels.shape == (64, 128, 3) and pixels.dtype == np.uint8 and (pixels == [255, 215, 0]).all()


def test_odd_exif_data_print_nothing(recwarn):
    """Its orientation stands there twice."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.new("RGB", (40, 20), "teal").save(file, "JPEG", exif=exif)
    content = file.getvalue().replace(b"\x00\x12\x01\x03\x00\x01\x00\x00", b"")
    at = content.index(b"\x01\x12\x00\x03\x00\x00\x00\x01")
    content = content[: at + 7] + b"\x02" + content[at + 8 :]
    [pixels] = made_ready([InitPicture("k", 64, 64)], {"k": InitImage("twice.jpg", content)}).values()
    assert pixels.shape == (64, 64, 3) and not recwarn.list


def test_a_picture_that_cannot_be_made_ready_is_named():
    key, image = image_of("teal.png", "teal")
    torn = InitImage(image.name, image.content[:60])
    with pytest.raises(FarmError, match="init_image: teal.png: .*truncated"):
        made_ready([InitPicture(key, 64, 64)], {key: torn})
