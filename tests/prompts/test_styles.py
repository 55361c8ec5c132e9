import pytest

from farm.prompts.replacing import TooLong
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
    assert parse_styles(text)[0] == [
        Style("cinematic", "the last counts"),
        Style("two\r\nlines", "a\r\nb"),
        Style("short"),
    ]


def test_what_is_odd_in_a_file_is_told():
    text = 'name,prompt,negative_prompt\nx,ink, drawing, old\n"y","a\nb",\ny,c,\n'
    styles, oddities = parse_styles(text)
    assert styles == [Style("x", "ink", "drawing"), Style("y", "c")]
    assert [tuple(oddity) for oddity in oddities] == [
        (
            "x",
            2,
            "has more columns than the first line; a text with a comma in it stands in double quotes",
        ),
        ("y", 5, "stands there twice; the last one counts"),
    ]


@pytest.mark.parametrize(
    ("rows", "line"),
    [('a,"b\nc,d,\n', 2), ('a,b,\n"c,d\n', 3), ('a,"b\nc",\nd, "e\nf,g,', 4), ('a,b,"', 2)],
)
def test_a_quote_that_is_never_closed_is_told(rows, line):
    with pytest.raises(BadStyles, match=f"has a quote in line {line} that is never closed"):
        parse_styles("name,prompt,negative_prompt\n" + rows)


def test_quotes_inside_of_texts_are_no_open_quotes():
    for rows in ('a,12" record,\n', 'a,"b ""c"" d",""\n', 'a,b,c"', 'a,b,"c"'):
        assert len(parse_styles("name,prompt,negative_prompt\n" + rows)[0]) == 1


def test_styles_do_not_make_texts_longer_than_allowed():
    assert styled("ab", ["{prompt}{prompt}"] * 2, 8) == "abababab"
    with pytest.raises(TooLong):
        styled("ab", ["{prompt}{prompt}"] * 40, 1000)
    with pytest.raises(TooLong):
        styled("ab", ["x" * 1001], 1000)


def test_spaces_before_quotes_do_not_count():
    [style] = parse_styles('name,prompt,negative_prompt\n"a", "b, c", "d, e"\n')[0]
    assert style == Style("a", "b, c", "d, e")


def test_an_old_file_has_names_and_texts():
    assert parse_styles("name,text\nfilm,grain\n")[0] == [Style("film", "grain")]


@pytest.mark.parametrize(
    "text", ["", "film,grain\n", "prompt,negative_prompt\n", 'name,prompt\n"' + "x" * 140_000]
)
def test_other_files_are_refused(text):
    with pytest.raises(BadStyles):
        parse_styles(text)


def test_what_a_style_says_itself():
    assert around("photo of {prompt}, {a|b}") == "photo of , {a|b}"
