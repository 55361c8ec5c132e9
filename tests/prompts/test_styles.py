import pytest

from farm.prompts.styles import BadStyles, Style, around, parse_styles, styled


@pytest.mark.parametrize(
    ("text", "styles", "expected"),
    [
        ("a cat", ["film grain"], "a cat, film grain"),
        ("a cat ", [" film grain "], "a cat, film grain"),
        ("a cat", [""], "a cat"),
        ("", ["blurry"], "blurry"),
        ("a cat", ["photo of {prompt}, sharp"], "photo of a cat, sharp"),
        ("a cat", ["{prompt} and {prompt}"], "a cat and a cat"),
        ("a cat", ["photo of {prompt}", "film"], "photo of a cat, film"),
        ("a cat", ["film", "photo of {prompt}"], "photo of a cat, film"),
        ("a cat", [], "a cat"),
    ],
)
def test_styles_are_put_around_as_in_a1111(text, styles, expected):
    assert styled(text, styles) == expected


def test_a_file_of_a1111():
    text = (
        "name,prompt,negative_prompt\r\n"
        '"cinematic", "film still of {prompt}, moody", "drawing, sketch"\r\n'
        '"two\r\nlines","a\r\nb",\r\n'
        ",nameless,\r\n"
        "short\r\n"
        "cinematic,the last counts,\r\n"
    )
    assert parse_styles(text) == [
        Style("cinematic", "the last counts"),
        Style("two\r\nlines", "a\r\nb"),
        Style("short"),
    ]


def test_an_old_file_has_names_and_texts():
    assert parse_styles("name,text\nfilm,grain\n") == [Style("film", "grain")]


@pytest.mark.parametrize(
    "text", ["", "film,grain\n", "prompt,negative_prompt\n", 'name,prompt\n"' + "x" * 140_000]
)
def test_other_files_are_refused(text):
    with pytest.raises(BadStyles):
        parse_styles(text)


def test_what_a_style_says_itself():
    assert around("photo of {prompt}, {a|b}") == "photo of , {a|b}"
