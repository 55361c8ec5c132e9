import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError


@pytest.fixture
def noise():
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (24, 40, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, (80, 48)),
        ({"scale": 1}, (40, 24)),
        ({"scale": 2.5}, (100, 60)),
        ({"width": 100}, (100, 60)),
        ({"height": 12}, (20, 12)),
        ({"width": 64, "height": 64}, (64, 64)),
    ],
)
def test_equals_pillow_called_directly(apply, noise, settings, size):
    finished = apply("lanczos", noise, **settings)
    assert finished.image.size == size
    assert finished.image.tobytes() == noise.resize(size, Image.Resampling.LANCZOS).tobytes()
    assert finished.columns == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0.5}, "greater than or equal to 1"),
        ({"scale": 9}, "less than or equal to 8"),
        ({"scale": 2, "width": 64}, "either scale, or width and height"),
        ({"scale": None}, "either scale, or width and height"),
        ({"width": 0}, "greater than or equal to 1"),
        ({"scael": 2}, "Extra inputs"),
    ],
)
def test_settings_refuse(apply, noise, settings, message):
    with pytest.raises(ValidationError, match=message):
        apply("lanczos", noise, **settings)
