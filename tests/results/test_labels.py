from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.job import Vocabulary, load_job
from farm.plan import compile_job
from farm.results.labels import cut_short, labels
from farm.results.pages import pages

HEAD = "name: x\nmodel: m\n"
CHOICE = HEAD + "dynamic_prompts: choice\n"
CAT = "prompt: a {ginger|gray} cat with {green|blue} eyes\n"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def plan(text):
        Path("job.yaml").write_text(text, encoding="utf-8")
        files = {"lora": {"ink": (), "wash": ()}, "embedding": {"bad": ()}}
        return compile_job(load_job(Path("job.yaml"), Vocabulary({"m": ()}, {}, files=files)))

    return plan


def drawn(plan, at, *words):
    """For each value of an axis, those of the words that its cells' prompts have."""
    prompts = {cell.coordinates[at]: cell.settings.prompt for cell in plan.cells}
    return [" … ".join(word for word in words if word in prompts[value]) for value in sorted(prompts)]


@pytest.mark.parametrize(
    "sweep", ["", "sweep: {cfg_scale: [3, 7]}\n", "sweep: {cfg_scale: [3, 7], steps: [1, 2]}\n"]
)
def test_what_cells_draw_stands_at_their_seeds(plan, sweep):
    made = plan(CHOICE + CAT + "seeds: 6\n" + sweep)
    at = [axis.name for axis in made.axes].index("seed")
    told = labels(made, made.cells)
    expected = drawn(made, at, "ginger", "gray", "green", "blue")
    assert len(set(expected)) > 2
    assert told.titles["seed"] == tuple(f"{seed} · {words}" for seed, words in enumerate(expected))
    assert told.heading == {"prompt": "a … cat with … eyes"} and not told.captions
    assert all(
        told.titles[axis.name] == tuple(v.title for v in axis.values)
        for axis in made.axes
        if axis.name != "seed"
    )


def test_what_no_axis_decides_stands_under_the_pictures(plan):
    made = plan(
        CHOICE + "seeds: 3\nsweep:\n  prompt: ['one red {x|y|z}', 'two red {x|y|z}', a plain red dog]\n"
    )
    told = labels(made, made.cells)
    assert told.titles["prompt"] == ("one red {x|y|z}", "two red {x|y|z}", "a plain red dog")
    for cell in made.cells:
        assert told.captions[cell.number] == cell.settings.prompt.replace(" red ", " … ")
    assert told.heading == {"prompt": "… red …"}


def test_a_label_with_variants_in_it_says_which_was_taken(plan):
    made = plan(
        CHOICE + "seed: 3\nsweep:\n  prompt: ['one {x|y}', 'two {x|y}', three]\n  cfg_scale: [3, 7]\n"
    )
    one, two = (
        {cell.settings.prompt for cell in made.cells if cell.coordinates[0] == value} for value in (0, 1)
    )
    told = labels(made, made.cells)
    assert told.titles["prompt"] == (f"one {{x|y}} · {one.pop()}", f"two {{x|y}} · {two.pop()}", "three")
    replaced = plan(CHOICE + "prompt: a green cat\nsweep: {replace: {cat: [cat, '{fox|fox}']}}\n")
    assert labels(replaced, replaced.cells).titles["replace cat"] == ("cat", "{fox|fox} · fox")


@pytest.mark.parametrize(
    "sweep",
    [
        "prompt: __x__\nsweep: {replace: {x: [fur, worn]}}\n",
        "define_styles: {s: {prompt: '{a|b|c} __worn__'}}\nstyles: s\nsweep: {prompt: [a cat, a dog]}\n",
        "define_styles: {s: {prompt: '{a|b}'}, t: {prompt: '{c|d}'}}\nprompt: x\nsweep: {styles: [s, t]}\n",
    ],
)
def test_what_is_drawn_otherwise_is_told_too(plan, sweep):
    made = plan(CHOICE + "define_wildcards: {fur: [red, red fur], worn: [hat, cap]}\n" + sweep)
    told = labels(made, made.cells)
    for cell in made.cells:
        label = told.titles[made.axes[0].name][cell.coordinates[0]]
        said = f"{label} {told.heading.get('prompt', '')}".replace(",", "").split()
        assert set(cell.settings.prompt.replace(",", "").split()) <= set(said)


def test_without_dynamic_prompts_braces_are_what_they_say(plan):
    made = plan(HEAD + "sweep:\n  prompt: ['one {x|y}', 'two {x|y}']\n  cfg_scale: [3, 7]\n")
    told = labels(made, made.cells)
    assert told.titles["prompt"] == ("one {x|y}", "two {x|y}") and not told.captions


def test_without_dynamic_prompts_braces_in_styles_are_what_they_say(plan):
    text = """prompt: a ginger cat
define_styles: {ink: {prompt: "{{{best}}}, {prompt}, {{ink}} drawing"}, film: {prompt: "film of {prompt}"}}
sweep: {styles: [none, ink, film]}
"""
    made = plan(HEAD + text)
    assert labels(made, made.cells).titles["styles"] == ("none", "ink", "film")


def test_drawn_negative_prompts_are_told_too(plan):
    text = CHOICE + "prompt: a cat\nnegative_prompt: '{low quality|blurry|}'\nseeds: 20\n"
    made = plan(text)
    told = labels(made, made.cells)
    for cell in made.cells:
        said = cell.settings.negative_prompt or "(empty)"
        assert told.titles["seed"][cell.coordinates[0]] == f"{cell.settings.seed} · negative: {said}"
    assert told.heading == {"prompt": "a cat"}
    both = plan(text.replace("a cat", "'{one|two} cat'") + "sweep: {look: [{title: A, steps: 9}]}\n")
    [label, *_] = labels(both, both.cells).titles["seed"]
    first = min(both.cells, key=lambda cell: cell.number).settings
    assert label == f"0 · {first.prompt.split()[0]} · negative: {first.negative_prompt or '(empty)'}"


ON_BLUE = "a ginger cat on a blue background"
STYLES = "define_styles: {blue: {prompt: '{prompt} on a blue background'}, bare: {negative_prompt: hat}}\n"


@pytest.mark.parametrize(
    ("text", "heading"),
    [
        (STYLES + "sweep: {styles: [none, blue]}\n", {"prompt": "a ginger cat …"}),
        (STYLES + "sweep: {styles: [none, bare]}\n", {"prompt": "a ginger cat"}),
        (STYLES + "styles: [bare, blue]\n", {"prompt": ON_BLUE, "negative_prompt": "hat"}),
        ("sweep: {replace: {cat: [cat, dog]}}\n", {"prompt": "a ginger …"}),
        ("sweep: {order: [a, ginger]}\n", {"prompt": "a ginger cat"}),
        ("sweep: {cfg_scale: [1, 2]}\n", {"prompt": "a ginger cat"}),
        ("sweep: {negative_prompt: [hat, '']}\n", {"prompt": "a ginger cat"}),
        ("dynamic_prompts: choice\nseeds: 5\nsweep: {replace: {cat: ['{c|d}']}}\n", {"prompt": "a ginger …"}),
    ],
)  # fmt: skip
def test_the_heading_has_what_the_prompts_have_in_common(plan, text, heading):
    made = plan(HEAD + "prompt: a ginger cat\n" + text)
    told = labels(made, made.cells)
    assert told.heading == heading and not told.captions
    if "choice" not in text:
        assert told.titles == {axis.name: tuple(value.title for value in axis.values) for axis in made.axes}


def test_labels_that_say_all_of_it_need_no_heading(plan):
    made = plan(HEAD + "sweep: {prompt: [a red cat, a red dog, {title: owl, prompt: an owl}]}\n")
    assert labels(made, [cell for cell in made.cells if cell.coordinates != (2,)]).heading == {}
    assert labels(made, made.cells[:1]).heading == {}
    owl = [cell for cell in made.cells if cell.coordinates == (2,)]
    assert labels(made, owl).heading == {"prompt": "an owl"}


def test_a_prompt_too_long_for_its_label_stands_in_the_heading(plan):
    made = plan(HEAD + f"sweep: {{prompt: [{'very ' * 40}long], cfg_scale: [1, 2]}}\n")
    assert labels(made, made.cells).heading == {"prompt": "very " * 40 + "long"}


def test_an_empty_prompt_is_said_to_be_empty(plan):
    made = plan(HEAD + "prompt: ''\nsweep: {cfg_scale: [1, 2]}\n")
    assert labels(made, made.cells).heading == {"prompt": "(empty)"}


TEXTS = [
    "masterpiece, best quality, a ginger cat with green eyes, detailed background, sharp focus",
    "masterpiece, best quality, a gray cat with blue eyes, detailed background, sharp focus",
    "masterpiece, best quality, a gray cat with blue eyes, a hat, detailed background, sharp focus",
]


@pytest.mark.parametrize(
    "other", ["", "  - ''\n", "  - {title: T, prompt: 'masterpiece, a cat, sharp focus'}\n"]
)
@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_each_word_stands_on_the_label_or_in_the_heading(plan, name, other):
    listed = "".join(f"  - {text}\n" for text in TEXTS) + other.replace("prompt:", f"{name}:")
    made = plan(
        HEAD + ("prompt: cat\n" * (name != "prompt")) + f"sweep:\n {name}:\n{listed} cfg_scale: [1, 2]\n"
    )
    told = labels(made, made.cells)
    for text, label in zip(TEXTS, told.titles[name]):
        words = set(text.replace(",", "").split())
        assert words <= set(f"{label} {told.heading[name]}".replace(",", "").split())
        assert len(label) < 0.75 * len(text)
    assert told.titles[name][3:] in ((), ("",), ("T",))


def test_what_axes_say_of_loras_is_not_said_again_under_the_pictures(plan):
    axes = "sweep: {lora: [none, ink, wash], lora_weight: [0.5, 1], negative_embedding: [none, bad]}\n"
    made = plan(HEAD + "prompt: a cat\nnegative_prompt: blurry\nseeds: 2\n" + axes)
    told = labels(made, made.cells)
    assert told.heading == {"prompt": "a cat", "negative_prompt": "blurry"} and not told.captions
    assert told.titles["lora"] == ("none", "ink", "wash") and told.titles["lora_weight"] == ("0.5", "1")


def test_a_lora_that_no_axis_names_stands_in_the_heading(plan):
    made = plan(HEAD + "prompt: a cat\nlora: ink\nsweep: {cfg_scale: [3, 7]}\n")
    assert labels(made, made.cells).heading == {"prompt": "a cat <lora:ink:1>"}


def test_prompts_that_differ_beside_loras_are_told_by_what_differs(plan):
    made = plan(HEAD + "sweep: {prompt: [a cat, a dog], lora: [none, ink]}\n")
    told = labels(made, made.cells)
    assert told.titles["prompt"] == ("a cat", "a dog") and not told.captions


def test_a_prompt_that_pages_is_told_whole_on_its_page(plan):
    listed = "".join(f"  - {text}\n" for text in TEXTS)
    made = plan(HEAD + f"sheet: {{pages: prompt}}\nsweep:\n cfg_scale: [1, 2]\n prompt:\n{listed}")
    assert [labels(made, page.cells.values()).heading for page in pages(made)] == [
        {"prompt": text} for text in TEXTS
    ]


def test_long_labels_are_cut_on_sheets_only(plan):
    texts = [f"{word} " + "very " * 60 + end for word, end in [("one", "a"), ("two", "b"), ("two", "c")]]
    made = plan(HEAD + "".join(["sweep:\n prompt:\n", *(f"  - {text}\n" for text in texts)]))
    whole = labels(made, made.cells).titles["prompt"]
    cut = labels(made, made.cells, longest=160).titles["prompt"]
    assert whole == ("one … a", "two … b", "two … c") == cut
    unlike = [" ".join(f"{word}{number}" for number in range(50)) for word in ("red", "green", "blue")]
    made = plan(HEAD + "".join(["sweep:\n prompt:\n", *(f"  - {text}\n" for text in unlike)]))
    assert labels(made, made.cells).titles["prompt"] == tuple(unlike)
    for text, label in zip(unlike, labels(made, made.cells, longest=160).titles["prompt"]):
        assert label.endswith(" …") and text.startswith(label[:-1]) and 150 < len(label) <= 160


def test_what_is_cut_stays_different():
    long = "x" * 200
    assert cut_short([long, "short"], 160) == ("x" * 158 + " …", "short")
    ends = cut_short([long + "a", long + "b", "y" * 161], 160)
    assert len(set(ends)) == 3 and max(map(len, ends)) <= 160 and ends[0].endswith("a")
    middles = [f"{long}{letter}{long}" for letter in "ab"]
    assert cut_short([*middles, "y" * 161], 160) == (*middles, "y" * 158 + " …")


@given(st.lists(st.text("ab …", max_size=30), max_size=6))
def test_cutting_makes_no_two_alike(texts):
    cut = cut_short(texts, 9)
    assert len(set(zip(texts, cut))) == len(set(cut)) == len(set(texts))
    assert all(label == text for label, text in zip(cut, texts) if len(text) <= 9)
