import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from farm.results import lettering
from farm.results.lettering import SMALLEST, draw, fit, line_height, readable, shortened


@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=120), st.integers(40, 300), st.integers(9, 36)
)
@example("0000\U00010000 Ð", 40, 9)
def test_a_block_is_as_wide_as_it_may_be_and_holds_all_its_text(text, width, size):
    block = fit(text, width, size)
    assert block.width <= width and SMALLEST <= block.size <= size
    assert "".join("".join(block.lines).split()) == "".join(readable(text).split())


@pytest.mark.parametrize("text", ["Euler a", "DPM++ 2M Karras", "a café, 7.5 — ×2", "x" * 60, "jgqpy|ÅÉ"])
@pytest.mark.parametrize("size", [9, 14, 36])
def test_what_is_drawn_stays_within_the_block(text, size):
    block = fit(text, 160, size)
    image = Image.new("L", (block.width + 40, block.height + 40), 0)
    draw(ImageDraw.Draw(image), block, 20, 20, colour="white")
    left, top, right, bottom = image.getbbox()
    assert left >= 18 and top >= 20 - 1 and right <= 22 + block.width and bottom <= 20 + block.height + 1


def test_words_are_kept_whole_where_smaller_letters_do():
    block = fit("extraordinarily beautiful", 100, 28)
    assert block.lines == ("extraordinarily", "beautiful") and block.size < 28


def test_names_are_broken_at_the_seams_in_them_and_only_where_they_do_not_fit():
    scheduler = "diffusers:DPMSolverMultistepScheduler(use_karras_sigmas=true, solver_order=3)"
    assert fit(scheduler, 160, 14).lines == (
        "diffusers:DPMSolver", "MultistepScheduler(", "use_karras_sigmas=true,", "solver_order=3)",
    )  # fmt: skip
    assert fit(scheduler, 160, 14).size == 14
    assert fit("a cat:dog", 80, 14).lines == ("a cat:dog",)
    assert fit("striped cat:dog", 80, 14).lines == ("striped", "cat:dog")


def test_a_height_is_kept_where_it_can_be():
    text = "several words " * 8
    assert fit(text, 128, 20, height=100).height <= 100
    tall = fit(text * 20, 128, 20, height=100)
    assert tall.size == SMALLEST and tall.height > 100
    short = shortened(tall, 100)
    assert (
        short.height <= 100
        and short.lines[-1].endswith("…")
        and len(short.lines) == 100 // line_height(SMALLEST)
    )


def test_no_label_is_boxes_only(monkeypatch):
    """On a system without any fonts, a character that Pillow's own font lacks is written as its escape."""
    for cached in (
        lettering._fonts,
        lettering._has,
        lettering._face_index,
        lettering.fit,
        lettering.text_width,
    ):
        cached.cache_clear()
    monkeypatch.setattr(lettering, "_FALLBACKS", ())
    try:
        assert readable("a 猫\u200b") == "a \\u732b"
        assert readable("plain ASCII: ~!@#") == "plain ASCII: ~!@#"
    finally:
        for cached in (
            lettering._fonts,
            lettering._has,
            lettering._face_index,
            lettering.fit,
            lettering.text_width,
        ):
            cached.cache_clear()


def test_the_missing_glyph_is_told_from_the_others():
    assert readable("Aa0") == "Aa0"
    assert readable("\U0010fffd") == "\\U0010fffd"
