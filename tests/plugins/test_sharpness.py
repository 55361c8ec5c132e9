import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage


@pytest.fixture
def noise():
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (31, 17, 3), dtype=np.uint8))


def test_equals_scipys_laplacian_inside_the_border(apply, noise):
    red, green, blue = np.moveaxis(np.asarray(noise, dtype=np.float64), -1, 0)
    laplacian = ndimage.laplace(0.299 * red + 0.587 * green + 0.114 * blue)[1:-1, 1:-1]
    columns = apply("sharpness", noise).columns
    assert columns == {"sharpness": pytest.approx(laplacian.var(), rel=1e-12)}


def test_blur_lowers_it_to_zero_for_an_even_picture(apply, noise):
    pictures = [noise, *(noise.filter(ImageFilter.GaussianBlur(radius)) for radius in (1, 3))]
    sharp, soft, softer = [apply("sharpness", picture).columns["sharpness"] for picture in pictures]
    assert sharp > soft > softer > 0
    even = Image.new("RGB", (8, 8), (10, 200, 30))
    assert apply("sharpness", even).columns["sharpness"] == pytest.approx(0, abs=1e-20)
