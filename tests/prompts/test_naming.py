import pytest

from farm.prompts.naming import embeddings, unapplied

KNOWN = {
    "lora": {"ginger", "style (v2)"},
    "hypernet": set(),
    "embedding": {"bad-hands", "bad", "easynegative"},
}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("bad-hands, BAD", ["bad-hands", "bad"]),
        ("(EasyNegative:1.2)", ["easynegative"]),
        ("badly", []),
        ("", []),
    ],
)
def test_names_of_embeddings_are_recognised(text, names):
    assert [name for *_, name in embeddings(text, KNOWN["embedding"])] == names
    assert all(
        text[start:end].casefold() == name for start, end, name in embeddings(text, KNOWN["embedding"])
    )


WITHOUT = "the picture is as without it"


def test_tags_that_do_nothing_say_why():
    text = "a bad cat <lora:Ginger:1><lora:gingr:1> <hypernet:x> <foo:bar> <lora: style (v2) :0.5> <lora:bad>"
    assert [(text[one.start : one.end], one.what) for one in unapplied(text, KNOWN)] == [
        ("<lora:gingr:1>", f"there is no lora 'gingr': {WITHOUT}; did you mean 'ginger'?"),
        ("<hypernet:x>", f"there is no hypernet 'x': {WITHOUT}"),
        ("<foo:bar>", "'foo' is no kind of tag, and left out; there are lora, hypernet"),
        ("<lora:bad>", f"there is no lora 'bad': {WITHOUT}"),
    ]
    assert [one.what for one in unapplied("<lora:ginger:1>", KNOWN, negative=True)] == []
