import logging
import re
from itertools import pairwise
from string import ascii_lowercase as LETTERS
from unittest.mock import MagicMock

import pytest
from dynamicprompts.parser.parse import parse
from hypothesis import given
from hypothesis import strategies as st

from farm.prompts.dynamic import MOST, DynamicPrompts
from farm.prompts.hiding import is_dynamic
from farm.prompts.wildcards import BadDynamic, Wildcards

WILDCARDS = Wildcards(
    {
        "animal": ("cat", "3::dog", "owl"),
        "colours/warm": ("red", "orange"),
        "colours/cold": ("blue",),
        "deep": ("a {big|small} __animal__",),
        "odd": ("[a|b] 100%", "no #1"),
        "bad": ("{a",),
        "empty": (),
        "say": ("it is ${c}",),
        "soft": ("gray # soft",),
        "weighed": ("5::p", "q", "0.5::r"),
        "blank": ("",),
        "worse": ("{a", "b", "{c", "__nope__ {d|e}"),
        "one": ("__two__",),
        "two": ("x", "y __one__"),
    },
    "the test",
)
READER = DynamicPrompts(WILDCARDS)
FOREIGN = "(a:1.2) [b|c] [d:e:0.5] <lora:f_g:1> BREAK  g AND h :0.5 \\(i\\) 100% $5 #1 j/k https://l /* m */"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", ["a cat"]),
        ("a {red|blue} cat", ["a red cat", "a blue cat"]),
        ("{a|b} {c|d}", ["a c", "a d", "b c", "b d"]),
        ("{a|{b|c}}", ["a", "b", "c"]),
        ("{a|}", ["a", ""]),
        ("{a|a}", ["a"]),
        ("{a}", ["a"]),
        ("{0.5::a|2::b}", ["a", "b"]),
        ("{2$$ and $$a|b|c}", ["a and b", "a and c", "b and a", "b and c", "c and a", "c and b"]),
        ("{0-1$$a|b}", ["", "a", "b"]),
        ("__animal__", ["cat", "dog", "owl"]),
        ("__colours/*__", ["blue", "red", "orange"]),
        ("__warm__", ["red", "orange"]),
        ("{__animal__|hen}", ["cat", "dog", "owl", "hen"]),
        ("{2$$ & $$__colours/warm__}", ["red & orange", "orange & red"]),
        ("__deep__", [f"a {size} {animal}" for size in ("big", "small") for animal in ("cat", "dog", "owl")]),
        ("__odd__", ["[a|b] 100%", "no #1"]),
        ("__{colours/warm|animal}__", ["red", "orange", "cat", "dog", "owl"]),
        ("__colours/{warm|{cold|warm}}__", ["red", "orange", "blue"]),
        ("${t={warm|cold}}__colours/${t}__", ["red", "orange", "blue"]),
        ("{__colours/{warm|cold}__}", ["red", "orange", "blue"]),
        ("{2$$ & $$__colours/{warm|cold}__}", ["red & orange", "orange & red", "blue"]),
        ("{2$$a|a}", ["a"]),
        ("{0-1$$__colours/cold__}", ["", "blue"]),
        ("__say(c=red)__", ["it is red"]),
        ("{__say(c=red)__}", ["it is red"]),
        ("${c={red|blue}}a ${c} cat", ["a red cat", "a blue cat"]),
        ("${c=!{red|blue}}a ${c} cat, ${c} hat", ["a red cat, red hat", "a blue cat, blue hat"]),
        ("${c=red}${c} ${d:blue}", ["red blue"]),
        ("%{a ... hat$${red|blue}}", ["a red hat", "a blue hat"]),
        ("{[a|b] c|d}", ["[a|b] c", "d"]),
        ("[a|{b|c}]", ["[a|b]", "[a|c]"]),
        ("[{a|b}:c:0.5]", ["[a:c:0.5]", "[b:c:0.5]"]),
        ("{~a|b} {@c|d} {!e}", ["a c e", "a d e", "b c e", "b d e"]),
        ("{a|{~b|c}}", ["a", "b", "c"]),
        ("a\t {b|c}\n\n d", ["a\t b\n\n d", "a\t c\n\n d"]),
        ("# why\n{a|b} # so // or", ["a # so // or", "b # so // or"]),
        ("rank # 2 {a|b}", ["rank # 2 a", "rank # 2 b"]),
        ("a // {b|c} x", ["a // b x", "a // c x"]),
        ("<lora:foo__bar:1> {x|y}", ["<lora:foo__bar:1> x", "<lora:foo__bar:1> y"]),
        ("<lora:__warm__:1>", ["<lora:red:1>", "<lora:orange:1>"]),
        ("<lora:foo__bar:1>", ["<lora:foo__bar:1>"]),
        ("a __soft__ cat", ["a gray # soft cat"]),
        (f"{FOREIGN} {{m|n}} {FOREIGN}", [f"{FOREIGN} m {FOREIGN}", f"{FOREIGN} n {FOREIGN}"]),
        (f"{{{FOREIGN}|m}}", [FOREIGN, "m"]),
        ("a} {b|c}", ["a} b", "a} c"]),
    ],
)  # fmt: skip
def test_variants(text, expected):
    assert READER.variants(text) == expected


def test_there_are_never_many_more_than_asked_for():
    assert len(READER.variants("{a|b|c|d} " * 4)) == 256
    assert len(READER.variants("{a|b|c|d|e|f|g|h} " * 30)) == MOST + 1
    assert len(READER.variants("{a|b|c|d|e|f|g|h} " * 30, 5)) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a {red|blue", "'a {red|blue' cannot be read from '{red|blue' on; is it closed?"),
        ("a __animal", "'a __animal' cannot be read from '__animal' on; is it closed?"),
        ("{" * 300 + "}" * 300, "is nested too deeply, or has too many variants"),
        ("__animals__", "there is no wildcard 'animals'; did you mean 'animal'? (looked for in the test)"),
        ("{a|b|__nothing__}", "there is no wildcard 'nothing' (looked for in the test)"),
        ("__empty__", "the wildcard 'empty' has no values"),
        (
            "__worse__",
            "wildcard 'worse': '{a' cannot be read from '{a' on; is it closed?; wildcard 'worse': '{c' "
            "cannot be read from '{c' on; is it closed?; there is no wildcard 'nope'",
        ),
        (
            "__nope1__ and __nope2__",
            "there is no wildcard 'nope1' (looked for in the test); there is no wildcard "
            "'nope2' (looked for in the test)",
        ),
        ("__say(c=__nope__)__", "there is no wildcard 'nope'"),
        ("__colours/{warm|nope}__", "there is no wildcard 'colours/nope'"),
        ("__{bad|animal}__", "'{a', a value of a wildcard, cannot be read; is it closed?"),
        ("# {a|b}", "'# {a|b}' is nothing but a comment: lines that begin with # are left out"),
        ("{a|b}" * 2001, "has more than 2000 braces and __, which are too many"),
        ("__../x__", "there is no wildcard '../x'"),
        ("__bad__", "wildcard 'bad': '{a' cannot be read from '{a' on"),
        ("__one__", "the wildcard 'one' leads back to itself: one → two → one"),
        ("${v}", "'${v}' cannot be read: Variable v is not defined in this context"),
        ("${v={a|${v}}}${v}", "is nested too deeply, or has too many variants"),
        ("{2$$__animal__|__animal__}", "stands for no text at all"),
        ("a {2$$__animal__|__animal__}", "stands for no text at all"),
    ],
)
def test_what_cannot_be_multiplied_out(text, message, capfd):
    with pytest.raises(BadDynamic) as caught:
        DynamicPrompts(WILDCARDS).variants(text)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert capfd.readouterr() == ("", "")


def test_values_that_cannot_be_read_are_told_once():
    reader = DynamicPrompts(WILDCARDS)
    for message in ("wildcard 'worse': '{a' cannot", "the wildcard 'worse' has values that cannot be read"):
        with pytest.raises(BadDynamic, match=f"^{re.escape(message)}"):
            reader.check("__worse__")


def test_variables_of_wildcards_are_looked_at():
    with pytest.raises(BadDynamic, match="there is no wildcard 'nope'"):
        READER.check("__animal(c=__nope__)__")


def test_a_search_without_end_is_given_up():
    options = "|".join(
        ["{a|b}", "{b|a}", "{a|b|}", "{b|a|}", "{|a|b}", "{|b|a}", "{a||b}", "{b||a}", "{a|b||}"]
    )
    with pytest.raises(BadDynamic, match="too much in it to try out"):
        READER.variants(f"{{9$${options}}}")


def test_a_choice_is_that_of_its_seed():
    text = "{2$$ and $$a|b|c} __animal__ {~red|blue} ${v=!{x|y}}${v}${v} __deep__ {!1|2}"
    seeds = [str(seed) for seed in range(50)]
    drawn = [READER.choice(text, seed) for seed in seeds]
    assert len(set(drawn)) > 40
    assert [DynamicPrompts(WILDCARDS).choice(text, seed) for seed in reversed(seeds)] == drawn[::-1]
    assert READER.choice("{red|green|blue} {cat|dog|owl|hen}", "1") == "green dog"  # on any machine
    assert READER.choice("a [b|c] $5", "1") == "a [b|c] $5"


def test_choices_follow_weights():
    drawn = [READER.choice("__animal__", str(seed)) for seed in range(1000)]
    assert 520 < drawn.count("dog") < 680
    drawn = [READER.choice("{9::a|b}", str(seed)) for seed in range(1000)]
    assert 850 < drawn.count("a") < 950


@pytest.mark.parametrize(
    "text",
    [
        "__{bad|bad}__",
        "a {b",
        "__nothing__",
        "{a|b|__nothing__}",
        "${v}",
        "__one__",
        "{0::a|0::b}",
        "# {a|b}",
        "__say(c=__nope__)__",
        pytest.param(
            "${a={x}{x}}"
            + "".join(f"${{{b}=${{{a}}}${{{a}}}}}" for a, b in pairwise(LETTERS))
            + f"${{{LETTERS[-1]}}}",
            id="too much",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_cannot_be_chosen_from(text, capfd):
    with pytest.raises(BadDynamic):
        READER.choice(text, "1")
    assert capfd.readouterr() == ("", "")


def test_what_is_drawn_from_a_wildcard_does_not_stand_twice():
    drawn = [READER.choice("{2$$__weighed__}", str(seed)).split(",") for seed in range(200)]
    assert all(len(set(words)) == 2 for words in drawn)
    assert sum("p" in words for words in drawn) > 120
    assert any("r" in words for words in drawn)  # for all its weight below 1
    assert {READER.choice("{2$$a|a}", str(seed)) for seed in range(9)} == {"a"}


def test_an_empty_text_can_be_drawn():
    assert READER.choice("a__blank__", "1") == "a"
    assert READER.variants("a__blank__") == ["a"]


def test_values_are_hidden_once_for_all_draws(monkeypatch):
    monkeypatch.setattr("farm.prompts.wildcards.hidden", hide := MagicMock(side_effect=str))
    reader = DynamicPrompts(Wildcards({"w": tuple(map(str, range(100)))}))
    assert len({reader.choice("__w__", str(seed)) for seed in range(50)}) > 20
    assert hide.call_count == 100


def test_plain_values_are_not_parsed(monkeypatch):
    for module in ("dynamic", "variants"):
        monkeypatch.setattr(f"farm.prompts.{module}.parse", parsed := MagicMock(side_effect=parse))
        reader = DynamicPrompts(
            Wildcards({"w": tuple(f"w{i} {{a|b}} __x__" for i in range(2000)), "x": ("y",)})
        )
        reader.check("__w__ {a|b}")
        assert len(reader.variants("__x__ __x__")) == 1
        assert parsed.call_count <= 1


@given(st.text(st.sampled_from("{}|_ab, -/.'"), max_size=30))
def test_values_that_are_taken_for_simple_can_be_read(text):
    wildcards = Wildcards({"w": (text,), "a": ("x",), "b": ("y",), "ab": ("z",)}, "the test")
    try:
        DynamicPrompts(wildcards).check("__w__")
    except BadDynamic:
        return
    DynamicPrompts(wildcards)._read(text) if is_dynamic(text) else None


def test_a_long_text_can_be_chosen_from():
    assert len(READER.choice("x{a|b}" * 500, "1")) == 1000


@given(st.text(st.sampled_from("{}[]|$%_~!@:-1ab /#\n"), max_size=60))
def test_any_text_gives_texts_or_a_mistake(text):
    for read in (lambda: READER.variants(text, 20), lambda: [READER.choice(text, "1")]):
        try:
            assert all(isinstance(found, str) for found in read())
        except BadDynamic as error:
            assert len(str(error).splitlines()) == 1


@given(st.text(st.sampled_from("[]|()<>:0.5 ab,$%\\&\n\t"), max_size=60))
def test_what_the_syntax_does_not_know_comes_through(text):
    assert READER.variants(text + " {x|y}") == [text + " x", text + " y"]


def test_the_library_tells_nobody():
    assert not logging.getLogger("dynamicprompts").propagate
