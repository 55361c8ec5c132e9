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


NOT_YET = "not applied yet: the picture is as without it"


def test_names_in_tags_are_none_of_embeddings():
    assert [one.what for one in unapplied("<lora:bad:1>", KNOWN)] == [
        f"the lora 'bad' is {NOT_YET}; there is no such file"
    ]


def test_what_is_not_applied_says_why():
    text = "a bad cat <lora:ginger:1><lora:gingr:1> <hypernet:x> <foo:bar> <lora:style (v2):0.5>"
    assert [(text[one.start : one.end], one.what) for one in unapplied(text, KNOWN)] == [
        ("bad", "the embedding 'bad' is not applied yet: it is encoded as words"),
        ("<lora:ginger:1>", "the lora 'ginger' is not applied yet: the picture is as without it"),
        ("<lora:gingr:1>", f"the lora 'gingr' is {NOT_YET}; there is no such file, did you mean 'ginger'?"),
        ("<hypernet:x>", f"the hypernet 'x' is {NOT_YET}; there is no such file"),
        ("<foo:bar>", "'foo' is no kind of tag, and left out; there are lora, hypernet"),
        ("<lora:style (v2):0.5>", "the lora 'style (v2)' is not applied yet: the picture is as without it"),
    ]
    assert [one.what for one in unapplied("<lora:ginger:1>", KNOWN, negative=True)] == []
