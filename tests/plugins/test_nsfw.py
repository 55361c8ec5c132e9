import importlib.util
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image, ImageDraw, ImageFilter
from pydantic import ValidationError

from farm.plugins import PluginError, find_plugins

nudenet = pytest.importorskip("nudenet")  # an extra, part of the development extras


@pytest.fixture(scope="module")
def portrait():
    """A drawn face, blurred: NudeNet knows photographs and sees nothing in hard-edged shapes."""
    image = Image.new("RGB", (320, 320), (90, 120, 160))
    draw = ImageDraw.Draw(image)
    skin = (224, 172, 140)
    draw.ellipse((70, 20, 250, 260), fill=(60, 35, 20))
    draw.rectangle((130, 230, 190, 320), fill=skin)
    draw.ellipse((30, 280, 290, 420), fill=(150, 40, 60))
    draw.ellipse((95, 60, 225, 260), fill=skin)
    for x in (125, 175):
        draw.ellipse((x, 130, x + 26, 146), fill=(255, 255, 255))
        draw.ellipse((x + 7, 130, x + 19, 146), fill=(60, 40, 20))
        draw.arc((x - 4, 112, x + 30, 134), 200, 340, fill=(50, 30, 20), width=4)
    draw.polygon([(160, 145), (148, 190), (172, 190)], fill=(205, 150, 120))
    draw.ellipse((136, 208, 184, 228), fill=(190, 70, 80))
    return image.filter(ImageFilter.GaussianBlur(4))


@pytest.fixture(scope="module")
def face(portrait, tmp_path_factory):
    """What NudeNet itself says about the picture as a file."""
    path = tmp_path_factory.mktemp("nsfw") / "portrait.png"
    portrait.save(path)
    [detection] = nudenet.NudeDetector().detect(str(path))
    return detection


def test_a_drawn_portrait_passes(apply, portrait):
    finished = apply("nsfw", portrait)
    assert finished.columns == {"nsfw": "passed"}
    assert finished.image.tobytes() == portrait.tobytes()


def test_what_counts_is_blacked_out_with_nudenets_own_class_and_score(apply, portrait, face):
    finished = apply("nsfw", portrait, classes=["FACE_FEMALE", "FACE_MALE"])
    assert finished.columns == {"nsfw": f"{face['class']} {face['score']:.2f}"}
    assert finished.image.size == portrait.size
    assert finished.image.getbbox() is None  # all black


def test_mark_keeps_the_picture(apply, portrait, face):
    finished = apply("nsfw", portrait, classes=[face["class"]], action="mark")
    assert finished.columns["nsfw"].startswith(face["class"])
    assert finished.image.tobytes() == portrait.tobytes()


@pytest.mark.parametrize(("offset", "flagged"), [(-0.01, True), (0.01, False)])
def test_threshold(apply, portrait, face, offset, flagged):
    finished = apply("nsfw", portrait, classes=[face["class"]], threshold=face["score"] + offset)
    assert (finished.columns["nsfw"] != "passed") is flagged


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.1}, "greater than or equal to 0.25"),
        ({"threshold": 1.1}, "less than or equal to 1"),
        ({"action": "blur"}, "'blackout' or 'mark'"),
        ({"classes": ["FACE"]}, "'ANUS_COVERED', .* or 'MALE_GENITALIA_EXPOSED'"),
    ],
)
def test_settings_refuse(apply, portrait, settings, message):
    with pytest.raises(ValidationError, match=message):
        apply("nsfw", portrait, **settings)


@pytest.mark.parametrize("missing", ["nudenet", "onnxruntime"])
def test_without_the_extra_the_plugin_says_how_to_get_it(apply, portrait, monkeypatch, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    with pytest.raises(PluginError) as caught:
        apply("nsfw", portrait)
    assert str(caught.value) == "plugin 'nsfw' needs the extra: pip install 'farm-sd[nsfw]'"


def test_its_classes_are_nudenets():
    shipped = Path(__file__).parents[2] / "plugins"
    label = find_plugins([shipped])["nsfw"].settings_model.model_fields["classes"].annotation
    assert set(get_args(get_args(label)[0])) == set(vars(nudenet.nudenet)["__labels"])
