"""Prompts as axes, from the job file to the cells."""

import os
from itertools import permutations
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from farm.errors import BadInput
from farm.job import Vocabulary, job_schema, load_job
from farm.plan import compile_job

HEAD = "name: x\nmodel: m\n"
CAT = HEAD + "prompt: a cat, red hat, green eyes, ginger fur\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def job(folder):
    def job(text, *overrides):
        (folder / "job.yaml").write_text(text, encoding="utf-8")
        return load_job(Path("job.yaml"), Vocabulary({"m": ()}, {}), overrides)

    return job


@pytest.fixture
def prompts(job):
    def prompts(text, *overrides, name="prompt"):
        return [getattr(cell.settings, name) for cell in numbered(job(text, *overrides))]

    return prompts


@pytest.fixture
def mistakes(job):
    def mistakes(text, *overrides):
        with pytest.raises(BadInput) as caught:
            compile_job(job(text, *overrides))
        return str(caught.value).splitlines()

    return mistakes


@pytest.fixture
def elsewhere(tmp_path_factory):
    """Loads a job's own file in an empty folder, where it must give the same."""

    def elsewhere(job):
        folder = tmp_path_factory.mktemp("elsewhere")
        (folder / "job.yaml").write_text(job.job_yaml, encoding="utf-8")
        again = load_job(folder / "job.yaml", Vocabulary({"m": ()}, {}, root=folder))
        assert [cell.settings for cell in numbered(again)] == [cell.settings for cell in numbered(job)]
        assert [titles(axis) for axis in again.axes] == [titles(axis) for axis in job.axes]
        assert (again.layout, again.job_yaml) == (job.layout, job.job_yaml)
        jsonschema.validate(YAML(typ="safe", pure=True).load(job.job_yaml), job_schema())
        return YAML(typ="safe", pure=True).load(job.job_yaml)

    return elsewhere


def numbered(job):
    return sorted(compile_job(job).cells, key=lambda cell: cell.number)


def titles(axis):
    return [value.title for value in axis.values]


# ---- order -----------------------------------------------------------------------------------------------


def test_parts_are_put_into_every_order(job, elsewhere):
    made = job(CAT + "sweep: {order: [red hat, green eyes, ginger fur]}\n")
    parts = ("red hat", "green eyes", "ginger fur")
    assert [axis.name for axis in made.axes] == ["order"]
    assert titles(made.axes[0]) == [", ".join(each) for each in permutations(parts)]
    assert [cell.settings.prompt for cell in numbered(made)] == [
        f"a cat, {', '.join(each)}" for each in permutations(parts)
    ]
    assert made.job_yaml == Path("job.yaml").read_text()
    elsewhere(made)


def test_parts_with_commas_are_told_apart(job):
    made = job(HEAD + "prompt: a cat, red hat, owl\nsweep: {order: ['cat, red', owl]}\n")
    assert titles(made.axes[0]) == ["cat, red · owl", "owl · cat, red"]
    assert [cell.settings.prompt for cell in numbered(made)] == ["a cat, red hat, owl", "a owl hat, cat, red"]


def test_order_comes_behind_replace_and_leaves_the_negative_prompt_alone(prompts):
    text = (
        CAT + "negative_prompt: dog, green eyes\nsweep: {order: 'green eyes, dog', replace: {cat: [dog]}}\n"
    )
    assert prompts(text) == [
        "a green eyes, red hat, dog, ginger fur",
        "a dog, red hat, green eyes, ginger fur",
    ]
    assert set(prompts(text, name="negative_prompt")) == {"dog, green eyes"}


def test_five_parts_have_120_orders(prompts):
    assert len(set(prompts(HEAD + "prompt: a, b, c, d, e\nsweep: {order: [a, b, c, d, e]}\n"))) == 120


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("[red hat]", "order: 1 parts are not allowed; 2 to 7 parts of the prompt are"),
        ("[a, b, c, d, e, f, g, h]", "order: 8 parts are not allowed; 2 to 7 parts of the prompt are"),
        ("[red hat, blue hat]", "order: 'blue hat' is not in the prompt"),
        ("[red hat, red]", "order: 'red' and 'red hat' share a place in the prompt"),
        ("[red hat, red hat]", "order: 'red hat' stands here twice"),
        ("[red hat, '']", "order: an empty part is not allowed"),
        ("[red hat, {title: x}]", "order: only plain values are allowed here"),
        ("{a: b}", "order: only plain values are allowed here"),
    ],
)
def test_orders_that_cannot_be(mistakes, order, message):
    assert mistakes(f"{CAT}sweep:\n  order: {order}\n") == [f"job.yaml:5: {message}"]


def test_parts_that_share_a_place_in_one_combination_only(mistakes):
    text = HEAD + "prompt: x y, y z\nsweep:\n  order: [x y, y z]\n  replace:\n    ', y': [', y', '']\n"
    assert mistakes(text) == ["job.yaml:5: order: 'x y' and 'y z' share a place in the prompt"]
    numbers = [f"{number}" for number in range(101)]
    many = "prompt: x y, y z Q R\nsweep:\n  order: [x y, y z]\n"
    many += f"  replace: {{Q: {numbers}, R: {numbers}, ', y': ['']}}\n"
    found = mistakes(HEAD + many)
    assert "job.yaml:3: prompt: order: 'x y' and 'y z' share a place in 'x y z 0 0'" in found
    assert len(found) == 11


def test_an_order_can_be_given_on_the_command_line(prompts):
    assert prompts(HEAD + "prompt: b a\n", "order=a,b") == ["a b", "b a"]
    assert prompts(HEAD + "prompt: c b a\nsweep: {order: [b, c]}\n", "order=a,b") == ["c a b", "c b a"]


def test_parts_that_only_some_prompts_have_are_told(job):
    made = compile_job(job(HEAD + "sweep:\n  prompt: [a cat with hat, a dog]\n  order: [cat, hat]\n"))
    assert made.warnings == tuple(
        f"job.yaml:5: warning: order: {part!r} is not in 'a dog', where nothing is put for it: orders that "
        "differ in nothing else are the same picture"
        for part in ("cat", "hat")
    )
    assert compile_job(job(CAT + "sweep: {order: [red hat, green eyes]}\n")).warnings == ()


def test_rules_that_drop_nothing_are_told(job):
    rules = "skip:\n  - {seed: [1, 2]}\n  - {seed: 1}\n  - {prompt: a nice cat}\n"
    made = compile_job(job(CAT + "sweep: {seed: [1, 2, 3]}\n" + rules))
    assert made.warnings == ("job.yaml:8: warning: skip: this rule drops no combination",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt: [ginger|black]", "3: prompt: a list is not allowed here; several values belong "
         "under sweep; a text "
         "that begins with [ stands in 'quotes'"),
        ("sweep: {prompt: [[ginger|black]]}", "3: prompt: a list inside a list is not allowed; a text that "
         "begins with [ stands in 'quotes'"),
        ("sweep: {prompt: [{red|blue}]}", "3: prompt: a mapping needs a title and settings; a text that "
         "begins with { stands in 'quotes'"),
        ("sweep: {prompt: {red|blue}}", "3: prompt: a mapping is not allowed; a text that begins with { "
         "stands in 'quotes'"),
        ("sweep: {zip: {prompt: [{red|blue}, a], seed: [1, 2]}}", "3: prompt: only plain values are allowed "
         "here; a "
         "text that begins with { stands in 'quotes'"),
    ],
)  # fmt: skip
def test_texts_that_yaml_takes_for_its_own(mistakes, text, message):
    assert mistakes(HEAD + text + "\n") == [f"job.yaml:{message}"]


# ---- lines -----------------------------------------------------------------------------------------------


def test_each_line_is_a_value(job, folder, elsewhere):
    (folder / "prompts.txt").write_bytes(b"\xef\xbb\xbfa cat\r\n\r\n# no\r\n  a dog: {x|y} \r\n1e5\n")
    made = job(HEAD + "sweep: {prompt: {lines: prompts.txt}, negative_prompt: [none, lines: prompts.txt]}\n")
    assert titles(made.axes[0]) == ["a cat", "a dog: {x|y}", "1e5"]
    assert titles(made.axes[1]) == ["none", "a cat", "a dog: {x|y}", "1e5"]
    assert elsewhere(made)["sweep"]["prompt"] == ["a cat", "a dog: {x|y}", "1e5"]


def test_lines_may_have_any_characters(job, folder, elsewhere):
    lines = [
        "null",
        "~",
        "- a: b",
        "%x @y `b !c *d &e",
        "q' \"z",
        "a\ttab",
        "a\u2028b",
        "[a",
        "{b",
        "1_000",
        "=",
        "<<",
    ]
    (folder / "p.txt").write_text("\r\n".join([*lines, "\x1b[0mbell\x07\x00"]), encoding="utf-8", newline="")
    assert elsewhere(job(HEAD + "sweep: {prompt: {lines: p.txt}}\n"))["sweep"]["prompt"] == [
        *lines,
        "[0mbell",
    ]


def test_lines_are_looked_for_beside_the_job(folder):
    (folder / "jobs").mkdir()
    (folder / "jobs" / "p.txt").write_text("a hen\n")
    (folder / "jobs" / "job.yaml").write_text(HEAD + "sweep: {prompt: {lines: p.txt}}\n")
    made = load_job(Path("jobs/job.yaml"), Vocabulary({"m": ()}, {}))
    assert [cell.settings.prompt for cell in numbered(made)] == ["a hen"]


def test_lines_can_be_zipped(prompts, folder):
    (folder / "p.txt").write_text("a hen\nan owl\n")
    assert prompts(HEAD + "sweep: {zip: {prompt: {lines: p.txt}, seed: [1, 2]}}\n") == ["a hen", "an owl"]


def test_names_that_no_file_can_have_and_pipes_are_turned_away(mistakes, folder):
    os.mkfifo(folder / "pipe")
    for name, what in (
        ("one\\0.txt", "cannot be read: embedded null byte"),
        ("pipe", "is not a regular file"),
    ):
        [mistake] = mistakes(HEAD + f'sweep: {{prompt: {{lines: "{name}"}}}}\n')
        assert mistake.startswith("job.yaml:3: lines: ")
        assert mistake.endswith(what)


def test_too_many_lines_are_told_once(mistakes, folder):
    (folder / "p.txt").write_text("\n".join(map(str, range(10_001))))
    assert mistakes(HEAD + "sweep: {prompt: {lines: p.txt}}\n") == [
        "p.txt:10001: prompt: more than 10000 values are not allowed"
    ]


def test_zipped_prompts_of_which_there_are_too_few_are_one_mistake(mistakes):
    [mistake] = mistakes(HEAD + "sweep: {zip: {prompt: [a, b], seed: [1, 2, 3]}}\n")
    assert "as many values are wanted" in mistake


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "lines: p.txt: cannot be read: No such file or directory"),
        (b"# none\n\n", "lines: p.txt has no line with a text"),
        (b"\xff\xfe", "lines: p.txt: is not UTF-8 text"),
        (b"x" * (5 << 20), "lines: p.txt: is larger than 4096 KiB"),
    ],
)
def test_files_without_lines(mistakes, folder, content, message):
    if content is not None:
        (folder / "p.txt").write_bytes(content)
    text = HEAD + "sweep:\n  prompt: {lines: p.txt}\n  replace: {cat: [dog]}\nsheet: {rows: prompt}\n"
    assert mistakes(text) == [f"job.yaml:4: {message}"]


def test_a_line_that_is_too_long_is_told_by_its_place(mistakes, folder):
    (folder / "p.txt").write_text("a\n\n" + "b" * 100_001)
    [mistake] = mistakes(HEAD + "sweep: {prompt: {lines: p.txt}}\n")
    assert mistake == "p.txt:3: prompt: a text of 100001 bytes is not allowed; at most 100000"


# ---- styles ----------------------------------------------------------------------------------------------

CSV = 'name,prompt,negative_prompt\nNone,,\nfilm,"{prompt}, film",grain\n"Soft, pale",pale,\nodd,"a {b|c}",\n'


@pytest.fixture
def styles_file(folder):
    (folder / "styles.csv").write_text(CSV, encoding="utf-8-sig")


def test_styles_at_the_top_are_around_all_prompts(job, styles_file, elsewhere):
    made = job(
        HEAD + "prompt: a cat\nnegative_prompt: bad\nstyles: [FILM, 'Soft, pale']\nsweep: {seed: [1, 2]}\n"
    )
    assert {(cell.settings.prompt, cell.settings.negative_prompt) for cell in numbered(made)} == {
        ("a cat, film, pale", "bad, grain")
    }
    assert elsewhere(made)["define_styles"] == {
        "film": {"prompt": "{prompt}, film", "negative_prompt": "grain"},
        "Soft, pale": {"prompt": "pale", "negative_prompt": ""},
    }


def test_styles_as_an_axis(job, styles_file, elsewhere):
    own = "define_styles: {ink: {prompt: ink}, film: {prompt: 'film of {prompt}'}}\n"
    made = job(
        HEAD
        + own
        + "prompt: a cat\nstyles: ink\nsweep: {styles: [none, film + soft, ink, all]}\n".replace(
            "soft", "ink"
        )
    )
    assert titles(made.axes[0]) == ["none", "film + ink", "ink", "film", "Soft, pale", "odd", "ink"]
    assert [cell.settings.prompt for cell in numbered(made)] == [
        "a cat, ink", "film of a cat, ink, ink", "a cat, ink, ink", "film of a cat, ink",
        "a cat, ink, pale", "a cat, ink, a {b|c}", "a cat, ink, ink",
    ]  # fmt: skip
    stored = elsewhere(made)
    assert stored["sweep"]["styles"] == titles(made.axes[0])
    assert set(stored["define_styles"]) == {"film", "Soft, pale", "odd", "ink"}


def test_a_job_with_its_own_styles_is_stored_as_it_is(job, elsewhere):
    made = job(
        HEAD + "prompt: a cat\ndefine_styles:\n  ink: {prompt: ink}  # dark\nsweep: {styles: [none, ink]}\n"
    )
    assert made.job_yaml == Path("job.yaml").read_text()
    elsewhere(made)


def test_styles_stand_in_titled_values_and_zip(job, styles_file, elsewhere):
    made = job(
        HEAD + "prompt: a cat\ndefine_styles: {ink: {prompt: ink}}\nsweep:\n"
        "  look: [{title: A, styles: film}, {title: B, prompt: a dog, styles: [ink, film]}]\n"
        "  zip: {seed: [1, 2], styles: [none, ink + film]}\n"
    )
    assert titles(made.axes[1]) == ["1 + none", "2 + ink + film"]
    assert [cell.settings.prompt for cell in numbered(made)] == [
        "a cat, film", "a cat, film, ink, film", "a dog, ink, film", "a dog, ink, film, ink, film",
    ]  # fmt: skip
    assert set(elsewhere(made)["define_styles"]) == {"film", "ink"}


def test_styles_that_look_like_mistakes_are_told(job, folder):
    (folder / "styles.csv").write_text("name,prompt,negative_prompt\nx,a,b,c\ny,a,\ny,b,\nz,a,\nz,b,\nx,d,\n")
    text = "prompt: a cat\ndefine_styles: {x: {prompt: 'film of {promt}'}}\nstyles: [x, y]\n"
    assert compile_job(job(HEAD + text)).warnings == (
        "styles.csv:4: warning: styles: 'y' stands there twice; the last one counts",
        "job.yaml:5: warning: styles: 'x' has {promt} in it, which is left as it is; did you mean {prompt}?",
    )


def test_texts_that_become_too_long_are_told_in_one_line(mistakes, folder):
    long = "4: prompt: with all that is put into it, it has more than 100000 bytes, which are too many"
    doubling = "define_styles: {d: {prompt: '{prompt}{prompt}'}}\nstyles: [" + ", ".join(["d"] * 60) + "]\n"
    (folder / "styles.csv").write_text(f"name,prompt,negative_prompt\nbig,{'x' * 120_000},\n")
    many = (
        "sweep: {replace: {a: ['"
        + "a" * 999
        + "'], aa: ['"
        + "a" * 999
        + "'], aaa: ['"
        + "a" * 9999
        + "']}}\n"
    )
    wide = "styles: s\ndefine_styles: {s: {prompt: '" + "\u00e4" * 49_999 + "'}}\n"
    for text in (doubling, "styles: big\n", many, wide):
        assert mistakes(HEAD + "model: m\nprompt: a cat\n".removeprefix("model: m\n") + text) == [
            f"job.yaml:{long.replace('4:', '3:')}"
        ]
    choice = "dynamic_prompts: choice\ndefine_wildcards: {w: ['" + "x" * 60_000 + "']}\nprompt: __w__ __w__\n"
    [mistake] = mistakes(HEAD + choice)
    assert mistake.endswith(
        "prompt: with all that is put into it, it has more than 100000 bytes, which are too many"
    )


def test_styles_on_the_command_line(prompts, styles_file):
    assert prompts(HEAD + "prompt: a cat\n", "styles=film") == ["a cat, film"]
    assert prompts(HEAD + "prompt: a cat\nsweep: {styles: [none]}\n", "styles=film, none") == [
        "a cat, film",
        "a cat",
    ]


def test_the_styles_of_the_workspace_are_found(folder, monkeypatch, styles_file):
    (folder / "jobs").mkdir()
    (folder / "jobs" / "job.yaml").write_text(HEAD + "prompt: a cat\nstyles: [film]\n")
    vocabulary = Vocabulary({"m": ()}, {}, root=folder)
    assert numbered(load_job(Path("jobs/job.yaml"), vocabulary))[0].settings.prompt == "a cat, film"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("styles: [flim]", "4: styles: 'flim' is not known; did you mean 'film'? (styles are looked for "
         "under "
         "define_styles and in styles.csv)"),
        ("styles: all", "4: styles: all is each of them, one by one: an axis, which belongs under sweep as "
         "`styles: all`"),
        ("styles: {film: x}", "4: styles: only plain values are allowed here"),
        ("sweep: {styles: [film + ,]}", "4: styles: '' is not known (styles are looked for under "
         "define_styles and "
         "in styles.csv)"),
        ("define_styles: {x: y}", "4: define_styles: 'x': a mapping with a prompt, a negative_prompt or "
         "both is "
         "wanted"),
        ("define_styles: {x: {text: y}}", "4: define_styles: text is not known; prompt and "
         "negative_prompt are"),
        ("define_styles: {x: {prompt: [y]}}", "4: define_styles: prompt: a text is wanted"),
        ("define_styles: {None: {prompt: x}}", "4: define_styles: 'None' is not allowed as a name; all and "
         "none mean something else"),
        ("define_styles: [x]", "4: define_styles: a mapping is wanted"),
        ("styles: [odd]\ndynamic_prompts: axis", "4: styles: 'odd' has variants, which become no axis; "
         "write a style "
         "for each, or `dynamic_prompts: choice`"),
    ],
)  # fmt: skip
def test_styles_that_cannot_be(mistakes, styles_file, text, message):
    assert mistakes(f"{HEAD}prompt: a cat\n{text}\n") == [f"job.yaml:{message}"]


def test_styles_without_a_file(mistakes):
    [mistake] = mistakes(HEAD + "prompt: a cat\nstyles: film\n")
    assert mistake == (
        "job.yaml:4: styles: 'film' is not known (styles are looked for under define_styles and in "
        "styles.csv "
        "beside the job or in the folder of the command)"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello\n", "styles.csv, which has no columns name, prompt and negative_prompt in its first line"),
        (b"\xff\xfe", "styles.csv: is not UTF-8 text"),
    ],
)
def test_a_file_that_has_no_styles(mistakes, folder, content, message):
    (folder / "styles.csv").write_bytes(content)
    [mistake] = mistakes(HEAD + "prompt: a cat\nstyles: film\n")
    looked_in = f"styles are looked for under define_styles and in {message}"
    assert mistake == f"job.yaml:4: styles: 'film' is not known ({looked_in})"


# ---- dynamic prompts as axes -----------------------------------------------------------------------------

AXIS = HEAD + "dynamic_prompts: axis\n"


def test_braces_are_literal_unless_asked_for(prompts):
    for line in ("", "dynamic_prompts: off\n", "dynamic_prompts: false\n", "dynamic_prompts:\n"):
        assert prompts(HEAD + line + "prompt: a {red|blue} __cat__\n") == ["a {red|blue} __cat__"]


def test_a_base_prompt_becomes_an_axis(job, elsewhere):
    made = job(AXIS + "max_prompts: 6\nprompt: a {red|blue} {cat|dog|owl}\nnegative_prompt: '{a|b}'\n")
    assert [axis.name for axis in made.axes] == ["prompt", "negative_prompt"]
    assert titles(made.axes[0]) == [f"a {c} {a}" for c in ("red", "blue") for a in ("cat", "dog", "owl")]
    stored = elsewhere(made)
    assert set(stored) == {"name", "model", "sweep"}
    assert stored["sweep"]["negative_prompt"] == ["a", "b"]


def test_swept_texts_are_multiplied_out_in_place(job, elsewhere):
    sweep = (
        "sweep:\n  prompt: ['a {red|blue} cat', a dog, {title: owl, prompt: 'an {old|new} owl'}]\n"
        "  replace: {a: [a, '{one|two}']}\n"
        "  look: [{title: L, negative_prompt: '{x|y}'}, {title: M, steps: 3}]\n"
    )
    made = job(AXIS + sweep)
    assert [titles(axis) for axis in made.axes] == [
        ["a red cat", "a blue cat", "a dog", "owl: an old owl", "owl: an new owl"],
        ["a", "one", "two"],
        ["L: x", "L: y", "M"],
    ]
    elsewhere(made)


def test_a_prompt_with_one_variant_stays_where_it_is(job):
    made = job(AXIS + "prompt: '${c=red}a ${c} {cat}'\n")
    assert (made.axes, made.base["prompt"]) == ((), "a red cat")


def test_the_signs_of_a1111_come_through(prompts):
    text = "(a:1.2) [b|c] [d:e:0.5] <lora:f:1> BREAK g AND h :0.5 100% $5 #1"
    assert prompts(AXIS + f"prompt: '{text} {{i|[j|k]}}'\n") == [f"{text} i", f"{text} [j|k]"]
    assert prompts(AXIS + f"prompt: '{text}'\n") == [text]


def test_options_are_multiplied_out_too(prompts):
    assert prompts(HEAD + "prompt: x\n", "prompt={a|b}", "dynamic_prompts=axis") == ["a", "b"]
    many = HEAD + "dynamic_prompts: axis\nprompt: x\n"
    assert len(prompts(many, "prompt={1|2|3|4|5|6} " * 4, "max_prompts=2000")) == 1296


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt: '{a|b|c} {d|e}'\nmax_prompts: 5", "4: prompt: 6 prompts come of this; at most 5 are "
         "allowed, unless "
         "you write `max_prompts: 6` to have them all, or `dynamic_prompts: choice` to have one drawn "
         "for each picture"),
        (f"prompt: '{'{a|b|c|d|e|f} ' * 20}'", "4: prompt: more than 10,000 prompts come of this, which "
         "are too many; "
         "write less in braces, or `dynamic_prompts: choice` to have one drawn for each picture"),
        ("prompt: 'a {b'", "4: prompt: 'a {b' cannot be read from '{b' on; is it closed?"),
        ("sweep:\n  prompt: [x, __y__]", "5: prompt: there is no wildcard 'y' (looked for in "
         "define_wildcards and a "
         "folder wildcards beside the job or in that of the command)"),
        ("prompt: x\nmax_prompts: 10001", "5: max_prompts: 10001 is not allowed; a whole number from 1 "
         "to 10000"),
        ("prompt: x\nmax_prompts: many", "5: max_prompts: many is not allowed; a whole number from 1 to "
         "10000"),
        ("prompt: '{a|b}'\nsweep: {prompt: [c]}", "4: prompt: it has variants, which become an axis, but "
         "sweep has "
         "prompt already"),
        ("sweep: {zip: {prompt: ['{a|b}', c], seed: [1, 2]}}", "4: zip: prompt: what has variants cannot "
         "be zipped; "
         "`dynamic_prompts: choice` draws one for each picture"),
        ("prompt: __a__\ndefine_wildcards: {a: [__b__], b: [x, y __a__]}", "4: prompt: the wildcard 'a' "
         "leads back to "
         "itself: a → b → a"),
        ("prompt: x\ndefine_wildcards: {a: {b: c}}", "5: define_wildcards: 'a': a list of texts is wanted"),
        ("prompt: x\ndefine_wildcards: [a]", "5: define_wildcards: a mapping is wanted"),
        ("prompt: '{2$$__a__|__a__}'\ndefine_wildcards: {a: [b]}", "4: prompt: '{2$$__a__|__a__}' stands "
         "for no text "
         "at all"),
    ],
)  # fmt: skip
def test_dynamic_prompts_that_cannot_be(mistakes, text, message, capfd):
    assert mistakes(AXIS + text + "\n") == [f"job.yaml:{message}"]
    assert capfd.readouterr() == ("", "")


def test_what_is_wrong_with_variants_is_told_with_all_else(mistakes):
    found = mistakes(AXIS + "prompt: 'a {b'\nsteps: 0\nsheet: {rows: prompt}\n")
    assert [mistake.split(":")[1] for mistake in found] == ["4", "5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dynamic_prompts: [axis]", "dynamic_prompts: one word is wanted; off, choice or axis"),
        ("max_prompts: {a: b}", "max_prompts: a whole number from 1 to 10000 is wanted"),
        ("define_wildcards: {z: []}", "define_wildcards: 'z': a list of texts is wanted"),
        ("define_wildcards: {w: [[a]]}", "define_wildcards: 'w': a list of texts is wanted"),
        ("define_wildcards: {w: [~]}", "define_wildcards: 'w': a list of texts is wanted"),
        ("wildcard_files: maybe", "wildcard_files: true or false is wanted"),
    ],
)
def test_what_is_of_the_wrong_kind_is_a_mistake_to_the_schema_too(mistakes, text, message):
    text = HEAD + f"prompt: x\n{text}\n"
    assert mistakes(text) == [f"job.yaml:4: {message}"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(YAML(typ="safe", pure=True).load(text), job_schema())


def test_rules_know_what_texts_and_titles_became_variants(job, elsewhere):
    sweep = (
        "sweep:\n  prompt: ['a {red|blue} cat', {title: night, prompt: 'a {dark|wet} night'}, c]\n"
        "  cfg_scale: [3, 5]\nskip:\n"
    )
    for rule in ("prompt: night", "prompt: 'a {red|blue} cat'", "prompt: [night, c], cfg_scale: 5"):
        made = job(
            AXIS
            + sweep
            + f"  - {{{rule}, cfg_scale: 5}}\n".replace("cfg_scale: 5, cfg_scale: 5", "cfg_scale: 5")
        )
        assert len(numbered(made)) == (7 if "c]" in rule else 8)
        elsewhere(made)
        assert compile_job(made).warnings == ()


def test_a_prompt_with_variants_that_another_axis_sets(mistakes):
    text = AXIS + "prompt: a {b|c}\nsweep: {look: [{title: A, prompt: x}, {title: B, prompt: y}]}\n"
    what = "prompt: it has variants, which become an axis, but the axis 'look' sets prompt already"
    assert mistakes(text) == [f"job.yaml:4: {what}"]


def test_an_unknown_mode(mistakes):
    [mistake] = mistakes(HEAD + "prompt: x\ndynamic_prompts: axes\n")
    assert (
        mistake
        == "job.yaml:4: dynamic_prompts: 'axes' is not allowed; off, choice or axis; did you mean 'axis'?"
    )


# ---- dynamic prompts as choices --------------------------------------------------------------------------

CHOICE = HEAD + "dynamic_prompts: choice\n"


@pytest.fixture
def wildcards(folder):
    (folder / "wildcards" / "a").mkdir(parents=True)
    (folder / "wildcards" / "a" / "cat.txt").write_text("tabby\n__fur__ cat\n")
    (folder / "wildcards" / "all.yaml").write_text("fur: [red, 2::grey]\nunused: [x]\n")


def test_each_cell_draws_by_its_seed(job, wildcards, elsewhere):
    text = "prompt: a __a/*__ with {red|blue|green} eyes\nnegative_prompt: '{x|y|z}'\n"
    text += "sweep: {steps: [5, 6]}\n"
    text += "seeds: 40\n"
    made = job(CHOICE + text)
    cells = numbered(made)
    by_seed = {}
    for cell in cells:
        by_seed.setdefault(cell.settings.seed, set()).add(
            (cell.settings.prompt, cell.settings.negative_prompt)
        )
    assert {len(drawn) for drawn in by_seed.values()} == {1}
    assert len({prompt for [(prompt, _)] in by_seed.values()}) == 9
    fewer = numbered(job(CHOICE + text.replace("seeds: 40", "seed: 7")))
    assert (fewer[0].settings.prompt, fewer[0].settings.negative_prompt) in by_seed[7]
    stored = elsewhere(made)
    assert stored["define_wildcards"] == {"a/cat": ["tabby", "__fur__ cat"], "fur": ["red", "2::grey"]}


def test_a_choice_is_drawn_behind_replace_order_and_styles(prompts):
    text = (
        "prompt: one, two, __x__\ndefine_styles: {s: {prompt: '{prompt} {a|a}'}}\nstyles: s\n"
        "define_wildcards: {yy: [three]}\nsweep: {replace: {x: [yy]}, order: [two, __yy__]}\n"
    )
    assert prompts(CHOICE + text) == ["one, two, three a", "one, three, two a"]


def test_what_is_made_of_a_prompt_is_not_said_at_the_top(job):
    text = "prompt: a {red|blue} cat\nnegative_prompt: '{x}'\n"
    assert compile_job(job(CHOICE + text + "seeds: 9\n")).asked == {"model": "m"}
    styled = "define_styles: {film: {prompt: film}}\nsweep: {styles: [film]}\n"
    for made in ("sweep: {replace: {cat: [dog]}}\n", "sweep: {order: [a, cat]}\n", styled):
        assert compile_job(job(HEAD + "prompt: a cat\n" + made)).asked == {"model": "m"}
    assert compile_job(job(HEAD + text)).asked == {
        "model": "m", "prompt": "a {red|blue} cat", "negative_prompt": "{x}",
    }  # fmt: skip


def test_wildcards_whose_names_are_put_together_are_all_kept(job, wildcards, elsewhere):
    made = job(CHOICE + "prompt: __x__\nseeds: 9\nsweep: {replace: {x: [fur, a/cat]}}\n")
    assert set(elsewhere(made)["define_wildcards"]) == {"a/cat", "fur", "unused"}


def test_a_job_with_its_own_wildcards_is_stored_as_it_is(job, wildcards, elsewhere):
    made = job(CHOICE + "prompt: __own__\ndefine_wildcards: {own: [a, b], fur: [mine]}\nseeds: 5\n")
    assert made.job_yaml == Path("job.yaml").read_text()
    elsewhere(made)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt: a {b", "4: prompt: 'a {b' cannot be read from '{b' on; is it closed?"),
        ("prompt: '{a|b|c|__nothing__}'", "4: prompt: there is no wildcard 'nothing'"),
        ("prompt: x\ndefine_styles: {s: {negative_prompt: __y__}}\nstyles: s", "4: negative_prompt: "
         "there is no "
         "wildcard 'y'"),
        ("prompt: x\nsweep: {replace: {x: ['{']}}", "4: prompt: '{' cannot be read"),
    ],
)  # fmt: skip
def test_choices_that_cannot_be(mistakes, text, message, capfd):
    [mistake] = mistakes(CHOICE + text + "\n")
    assert mistake.startswith(f"job.yaml:{message}")
    assert capfd.readouterr() == ("", "")


def test_a_job_that_was_written_out_reads_no_other_wildcards(job, folder):
    (folder / "wildcards" / "birds").mkdir(parents=True)
    (folder / "wildcards" / "birds" / "small.txt").write_text("wren\ntit\n")
    text = CHOICE + "prompt: __birds/*__\nseeds: 20\ndefine_wildcards: {birds/own: [owl]}\n"
    made = job(text)
    drawn = [cell.settings.prompt for cell in numbered(made)]
    assert set(drawn) == {"wren", "tit", "owl"}
    (folder / "wildcards" / "birds" / "new.txt").write_text("ostrich\n")
    assert [cell.settings.prompt for cell in numbered(job(made.job_yaml))] == drawn
    assert job(made.job_yaml).job_yaml == made.job_yaml
    assert "ostrich" in {cell.settings.prompt for cell in numbered(job(text))}


def test_all_that_cells_cannot_draw_from_is_told_at_its_place(mistakes, folder):
    (folder / "li.txt").write_text("ok\n\n{a\n__p__ and __q__\n")
    text = "steps: 0\nnegative_prompt: '{x'\nsweep:\n  prompt: {lines: li.txt}\n"
    found = mistakes(CHOICE + text)
    places = [mistake.partition(" ")[0] for mistake in found]
    assert places == ["li.txt:3:", "job.yaml:4:", "li.txt:4:", "li.txt:4:", "job.yaml:5:"]


def test_both_prompts_of_a_cell_are_told(mistakes):
    text = "prompt: x\nnegative_prompt: y\nstyles: s\n"
    text += "define_styles: {s: {prompt: '{a', negative_prompt: __b__}}\n"
    assert [mistake.split(":")[1:3] for mistake in mistakes(CHOICE + text)] == [
        ["4", " prompt"],
        ["5", " negative_prompt"],
    ]


def test_files_of_wildcards_that_cannot_be_read_are_told_where_one_is_missing(mistakes, wildcards, folder):
    (folder / "wildcards" / "bad.yaml").write_text("a: [")
    [mistake] = mistakes(CHOICE + "prompt: __furr__\n")
    assert mistake.startswith(
        "job.yaml:4: prompt: there is no wildcard 'furr'; did you mean 'fur'? (looked for in"
    )
    assert "; wildcards/bad.yaml cannot be read: while parsing" in mistake


# ---- titles ----------------------------------------------------------------------------------------------

LONG = "a {ginger|grey} cat with {green|blue} eyes wearing a hat on a blue background"


def test_titles_say_what_differs_and_rules_know_the_texts_too(job):
    made = job(AXIS + f"prompt: '{LONG}'\n")
    assert titles(made.axes[0]) == ["ginger … green", "ginger … blue", "grey … green", "grey … blue"]
    text = "a grey cat with blue eyes wearing a hat on a blue background"
    for rule in (text, "grey … blue"):
        kept = numbered(
            job(AXIS + f"prompt: '{LONG}'\nskip: [{{prompt: {rule}}}]\nsweep: {{replace: {{hat: [cap]}}}}\n")
        )
        assert len(kept) == 3
        assert text.replace("hat", "cap") not in {cell.settings.prompt for cell in kept}


def test_values_with_a_title_keep_it(job):
    texts = [f"a very long text about a {animal} on a mat" for animal in ("cat", "dog")]
    made = job(HEAD + f"sweep:\n  prompt: [{texts[0]}, {texts[1]}, {{title: cat, prompt: {texts[0]}}}]\n")
    assert titles(made.axes[0]) == [texts[0], "dog", "cat"]


# ---- all of it -------------------------------------------------------------------------------------------


def test_a_thousand_dynamic_prompts(prompts):
    words = " ".join(f"{{{'|'.join(f'{letter}{i}' for i in range(10))}}} of" for letter in "abc")
    assert len(set(prompts(AXIS + f"prompt: '{words} a cat'\n"))) == 1000


@pytest.mark.slow
def test_a_job_that_cannot_be_stored_is_refused(mistakes, folder):
    (folder / "p.txt").write_text("\n".join("x" * 600 + str(i) for i in range(5000)))
    (folder / "q.txt").write_text("\n".join("y" * 600 + str(i) for i in range(5)))
    text = HEAD + "sweep: {prompt: {lines: p.txt}, negative_prompt: ['" + "z" * 99_000 + "'"
    for number in range(20):
        text += ", '" + "z" * 60_000 + f"{number}'"
    [mistake] = mistakes(text + ", {lines: q.txt}]}\n")
    assert (
        mistake == "job.yaml:1: with all its texts written out the job is larger than 4096 KiB or 50000 lines"
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    text=st.text(st.sampled_from("{}[]|$%_~!@:-12ab ,"), max_size=30),
    mode=st.sampled_from(["axis", "choice"]),
)
def test_any_prompt_is_read_or_is_a_mistake(text, mode, folder):
    path = folder / "job.yaml"
    quoted = text.replace("'", "''")
    path.write_text(f"{HEAD}dynamic_prompts: {mode}\nprompt: '{quoted}'\nseeds: 2\n", encoding="utf-8")
    try:
        made = load_job(path, Vocabulary({"m": ()}, {}))
        cells = numbered(made)
    except BadInput as error:
        assert len(str(error).splitlines()) == 1
        return
    path.write_text(made.job_yaml, encoding="utf-8")
    again = numbered(load_job(path, Vocabulary({"m": ()}, {})))
    assert [cell.settings for cell in again] == [cell.settings for cell in cells]
