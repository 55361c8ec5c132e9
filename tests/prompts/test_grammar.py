import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.prompts.grammar import parse, parse_negative
from farm.prompts.tree import Alternation, Edit, Part, Prompt, Tag
from tests.prompts.documented import AMBIGUOUS, DIFFERING, PARTS, SCHEDULES, TAGS

# Pieces that mean something to the language, in any order.
typed = st.lists(
    st.sampled_from([
        *"[]():|\\<> ,\n", "a", "cat", "3", ".5", ":3]", ":0.5]", ":1.2)", " AND ", "AND", "BREAK", "[a|b]",
        "[a:b:3]", "(a:1.2)", "<lora:x:1>", "\\(", "ü", "猫",
    ])
).map("".join)  # fmt: skip
texts = st.one_of(typed, st.text())


@pytest.mark.parametrize(("text", "steps", "schedule", "source"), SCHEDULES)
def test_schedules_are_as_documented(text, steps, schedule, source):
    [part] = parse_negative(text).parts
    assert [list(entry) for entry in part.schedule(steps)] == schedule, source


@pytest.mark.parametrize(("text", "steps", "early", "late", "source"), DIFFERING)
def test_where_versions_differ_the_late_one_counts(text, steps, early, late, source):
    expected = early if "5e-1" in text else late  # below 1 it is a part of the steps, however it is written
    assert [list(entry) for entry in parse_negative(text).parts[0].schedule(steps)] == expected, source


@pytest.mark.parametrize(("text", "steps", "results", "remark"), AMBIGUOUS)
def test_where_the_original_does_not_decide_edits_count(text, steps, results, remark):
    assert [list(entry) for entry in parse_negative(text).parts[0].schedule(steps)] == results[0], remark


@pytest.mark.parametrize(("text", "parts", "source"), PARTS)
def test_parts_and_weights_are_as_documented(text, parts, source):
    found = [(str(part).removesuffix(part.ending), part.weight) for part in parse(text).parts]
    assert found == parts, source


@pytest.mark.parametrize(("text", "bare", "tags", "source"), TAGS)
def test_tags_are_as_documented(text, bare, tags, source):
    prompt = parse(text)
    assert [(tag.kind, list(tag.arguments)) for tag in prompt.tags] == tags, source
    assert "AND".join(map(str, prompt.parts)) == bare


def test_a_tree_says_what_is_where():
    assert parse("a [b:c:3] AND [d|]<lora:x:1> :-0.5") == Prompt(
        (
            Part(("a ", Edit(("b",), ("c",), "3")), " "),
            Part((" ", Alternation((("d",), ()))), " :-0.5"),
        ),
        (Tag("lora", ("x", "1"), len("a [b:c:3] AND [d|]")),),
    )


def test_a_negative_prompt_knows_neither_parts_nor_tags():
    text = "a AND b :1.2 <lora:x:1>"
    assert parse_negative(text) == Prompt((Part((text,)),))


@given(texts)
def test_any_text_prints_back_to_itself(text):
    assert str(parse(text)) == text
    assert str(parse_negative(text)) == text


@given(texts, st.integers(1, 40))
def test_schedules_cover_every_step(text, steps):
    for part in parse(text).parts:
        lasts = [last for last, _ in part.schedule(steps)]
        assert lasts == sorted(set(lasts)) and lasts[0] >= 1 and lasts[-1] == steps


@given(st.text(alphabet="abc (){}<>,."), st.integers(1, 9))
def test_a_text_without_colons_and_bars_holds_at_every_step(text, steps):
    assert parse_negative(text).parts[0].schedule(steps) == [(steps, text)]


@pytest.mark.timeout(60)  # quadratic time would take hours
@pytest.mark.parametrize(
    "text",
    ["(" * 50_000 + ")" * 50_000, "[a|b]" * 10_000, "[" * 15_000 + "a" + ":1]" * 15_000, "[:" * 20_000,
     "<a:" * 30_000, "[a:b:0.5" * 10_000, ":" * 100_000, "\\" * 99_999, "([|])" * 10_000, " " * 100_000,
     "[a:" + " " * 90_000 + "]", ": " * 50_000, " AND" * 20_000, "<a:b" * 20_000 + ">", "[x|" * 30_000],
    ids=lambda text: text[:6],
)  # fmt: skip
def test_nothing_is_too_deep_or_too_long(text):
    prompt = parse(text)
    assert str(prompt) == text
    assert all(part.schedule(2)[-1][0] == 2 for part in prompt.parts)
