import json
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from ruamel.yaml import YAML

from farm.axes import MAX_VALUES
from farm.cell import SETTING_NAMES, PluginUse, Settings
from farm.document import MAX_BYTES
from farm.errors import BadInput
from farm.job import MAX_CELLS, PluginInfo, Vocabulary, job_schema, load_job, read_drawn
from farm.layout import Layout
from farm.patch_settings import PATCH_DEFAULTS
from farm.plan import compile_job
from farm.sampling import SAMPLERS
from farm.settings import MAX_PROMPT_BYTES, MAX_SEED, SETTINGS

JOBS = Path(__file__).parent.parent / "jobs"


class Scaling(BaseModel, extra="forbid"):
    scale: float = Field(2.0, ge=1, le=4)
    tags: list[str] = []
    limits: dict[str, int] = {}


class Nothing(BaseModel, extra="forbid"):
    pass


VOCABULARY = Vocabulary(
    models={
        "tiny-cats": ("a1b2c3d4e5",),
        "Deliberate, v2": ("deliberate", "1234567890"),
        "sub/one": ("same",),
        "sub/two": ("same",),
    },
    plugins={
        "lanczos": PluginInfo("lanczos", "1.2", True, Scaling),
        "sharpness": PluginInfo("sharpness", "1", False, Nothing),
    },
)
HEAD = "model: tiny-cats\nprompt: a cat\n"


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text, *overrides, drawn=(), vocabulary=VOCABULARY):
        Path("job.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
        return load_job(Path("job.yaml"), vocabulary, overrides, drawn)

    return load


@pytest.fixture
def mistakes(load):
    def mistakes(text, *overrides):
        with pytest.raises(BadInput) as caught:
            load(text, *overrides)
        return str(caught.value).splitlines()

    return mistakes


def swept(job, name):
    [axis] = [axis for axis in job.axes if axis.name == name]
    return [value.settings[name] for value in axis.values]


def titles(job, name):
    [axis] = [axis for axis in job.axes if axis.name == name]
    return [value.title for value in axis.values]


def test_base_settings_and_defaults(load):
    job = load(
        HEAD
        + "steps: 7\ncfg_scale: '2.50'\nnegative_prompt: |\n  nudity\nsampler: k_heun\nseed: 3805052747\n"
    )
    assert Settings(**job.base) == Settings(
        "tiny-cats", "a cat", "nudity", sampler="Heun", steps=7, cfg_scale=2.5, seed=3805052747
    )
    assert (job.name, job.axes, job.plugins, job.drawn) == ("job", (), (), ())
    assert Settings(**load(HEAD).base) == Settings("tiny-cats", "a cat")


def test_every_setting_of_a_cell_can_be_given():
    others = {"evaluations", "merge_weight", *PATCH_DEFAULTS}
    assert tuple(name for name in SETTINGS if name not in others) == SETTING_NAMES
    assert others <= SETTINGS.keys() and not others & set(SETTING_NAMES)


@pytest.mark.parametrize(
    ("written", "model"),
    [
        ("TINY-cats", "tiny-cats"),
        ("a1b2c3d4e5", "tiny-cats"),
        ("1234567890", "Deliberate, v2"),
        ("Deliberate, v2", "Deliberate, v2"),
    ],
)
def test_models_answer_to_their_other_names(load, written, model):
    assert load(f"prompt: a cat\nmodel: {written}\n").base["model"] == model


@pytest.mark.parametrize(
    ("written", "prompt"),
    [
        ("2023", "2023"),
        ("true", "true"),
        ("1e5", "1e5"),
        ("''", ""),
        ("'a, b: (c:1.2)'", "a, b: (c:1.2)"),
        ("", ""),
    ],
)
def test_prompts_are_texts_as_written(load, written, prompt):
    assert load(f"model: tiny-cats\nprompt: {written}\n").base["prompt"] == prompt


@pytest.mark.parametrize(
    ("sweep", "name", "expected"),
    [
        ("steps: 1-13 (+4)", "steps", [1, 5, 9, 13]),
        ("steps: [1, 2, ..., 5]", "steps", [1, 2, 3, 4, 5]),
        ("steps: 1, 2, ..., 5", "steps", [1, 2, 3, 4, 5]),
        ("steps: [1-3, 7, 10-20 (+5)]", "steps", [1, 2, 3, 7, 10, 15, 20]),
        ("steps: '20'", "steps", [20]),
        ("steps: [20.0]", "steps", [20]),
        ("cfg_scale: .5-1.5 (+.25)", "cfg_scale", [0.5, 0.75, 1.0, 1.25, 1.5]),
        ("cfg_scale: 1-2 [5]", "cfg_scale", [1.0, 1.25, 1.5, 1.75, 2.0]),
        ("steps: 1-10 [5]", "steps", [1, 3, 5, 7, 10]),
        ("width: 64-96 (+16)", "width", [64, 80, 96]),
        ("sampler: Euler a, heun", "sampler", ["Euler a", "Heun"]),
        ("sampler: all", "sampler", [row.name for row in SAMPLERS]),
        ("model: 'tiny-cats, \"Deliberate, v2\"'", "model", ["tiny-cats", "Deliberate, v2"]),
        ("prompt: [a cat, 'dogs, cats']", "prompt", ["a cat", "dogs, cats"]),
        ("prompt: dogs, cats", "prompt", ["dogs, cats"]),
        ("precision: [fp32, float16]", "precision", ["fp32", "fp16"]),
        ("seed: [1, 2]", "seed", [1, 2]),
    ],
)
def test_setting_axes(load, sweep, name, expected):
    values = swept(load(f"{HEAD}sweep:\n  {sweep}\n"), name)
    assert values == expected
    assert all(type(value) is type(other) for value, other in zip(values, expected))


def test_labels_are_the_numbers_as_written(load):
    assert titles(load(HEAD + "sweep: {cfg_scale: [1.0, 1e-1, 2.50, 0.1-0.3 (+.1)]}\n"), "cfg_scale") == (
        ["1", "0.1", "2.5", "0.1", "0.2", "0.3"]
    )


def test_titled_values_beside_plain_ones(load):
    job = load(
        HEAD + "sweep:\n  sampler:\n    - Euler\n    - {title: slow, sampler: Heun, steps: 40}\n    - LMS\n"
    )
    [axis] = job.axes
    assert [(value.title, dict(value.settings)) for value in axis.values] == [
        ("Euler", {"sampler": "Euler"}),
        ("slow", {"sampler": "Heun", "steps": 40}),
        ("LMS", {"sampler": "LMS"}),
    ]


def test_own_axis(load):
    job = load(HEAD + "sweep:\n  look: [{title: A, cfg_scale: 3}, {title: B, prompt: a dog, steps: '5'}]\n")
    [axis] = job.axes
    assert axis.name == "look"
    assert [dict(value.settings) for value in axis.values] == [
        {"cfg_scale": 3.0},
        {"prompt": "a dog", "steps": 5},
    ]


def test_replace_axes(load):
    job = load(HEAD + "sweep:\n  replace:\n    cat: [cat, dog, '']\n    a: one\n")
    assert [axis.name for axis in job.axes] == ["replace cat", "replace a"]
    assert titles(job, "replace cat") == ["cat", "dog", "(nothing)"]
    assert [value.replaces for value in job.axes[0].values] == [
        (("cat", "cat"),),
        (("cat", "dog"),),
        (("cat", ""),),
    ]


def test_replace_may_search_for_what_an_axis_put_in(load):
    load(HEAD + "sweep:\n  replace: {cat: [dog], dog: [wolf]}\n")
    load(HEAD + "sweep:\n  prompt: [a hen]\n  replace: {hen: [owl]}\n")


def test_zipped_axes(load):
    job = load(
        HEAD + "sweep:\n  zip:\n    - {sampler: 'Euler, Heun', steps: 10-20 (+10)}\n"
        "    - {seed: [1], cfg_scale: [2]}\n"
    )
    assert [axis.name for axis in job.axes] == ["sampler + steps", "seed + cfg_scale"]
    assert titles(job, "sampler + steps") == ["Euler + 10", "Heun + 20"]
    assert dict(job.axes[0].values[1].settings) == {"sampler": "Heun", "steps": 20}


def test_layout_as_asked_and_by_default(load):
    sweep = "sweep: {steps: [1, 2], seed: [1, 2], cfg_scale: [1, 2], sampler: [LMS, Heun]}\n"
    assert load(HEAD + sweep).layout == Layout("steps", "seed", pages=("cfg_scale", "sampler"))
    asked = "sheet: {rows: steps, super_rows: seed}\n"
    assert load(HEAD + sweep + asked).layout == Layout(
        "cfg_scale", "steps", super_rows="seed", pages=("sampler",)
    )
    asked = "sheet: {pages: [sampler, steps], super_columns: seed}\n"
    assert load(HEAD + sweep + asked).layout == Layout(
        "cfg_scale", super_columns="seed", pages=("sampler", "steps")
    )
    assert load(HEAD + sweep + "sheet: {pages: seed}\n").layout == Layout(
        "steps", "cfg_scale", pages=("seed", "sampler")
    )


def test_plugins_get_complete_settings_in_the_order_written(load):
    job = load(HEAD + "plugins:\n  sharpness:\n  lanczos: {scale: 3, tags: ['1e5']}\n")
    assert job.plugins == (
        PluginUse("sharpness", "1", "{}", False),
        PluginUse("lanczos", "1.2", '{"limits": {}, "scale": 3.0, "tags": ["1e5"]}', True),
    )


def test_entries_with_nothing_in_them_are_as_if_absent(load):
    job = load(HEAD + "name:\nsweep:\nskip:\nsheet:\nplugins: ~\nseeds:\n")
    assert (job.axes, job.skips, job.layout, job.plugins) == ((), (), Layout(), ())


def test_what_comes_out_is_plain(load):
    sweep = "sweep:\n  sampler: [Euler, {title: x, model: a1b2c3d4e5}]\n  replace: {cat: [dog]}\n"
    rest = "  zip: {precision: [fp16]}\nsheet: {rows: sampler}\nname: y\nplugins: {sharpness: }\n"
    job = load(HEAD + sweep + rest)
    texts = [job.name, job.base["model"], job.base["prompt"], job.layout.rows, job.plugins[0].name]
    for axis in job.axes:
        texts.append(axis.name)
        for value in axis.values:
            pairs = [text for pair in value.replaces for text in pair]
            texts += [value.title, *value.settings, *value.settings.values(), *pairs]
    assert len(texts) == 20
    assert {type(text) for text in texts} == {str}


# ---- seeds -----------------------------------------------------------------------------------------------


def test_seeds_make_an_axis_behind_the_others(load):
    job = load(HEAD + "seed: 5\nseeds: 3\nsweep: {steps: [1, 2]}\n")
    assert [axis.name for axis in job.axes] == ["steps", "seed"]
    assert swept(job, "seed") == [5, 6, 7]


def test_random_seeds_are_drawn_once_and_read_back(load):
    text = HEAD + "seed: random\nsweep:\n  look: [{title: A, seed: -1}, {title: B, seed: Random}]\n"
    job = load(text)
    first, *others = job.drawn
    assert len(others) == 2
    assert job.base["seed"] == first
    assert [value.settings["seed"] for value in job.axes[0].values] == others
    assert all(0 <= seed < 2**32 for seed in job.drawn)
    assert load(text).drawn != job.drawn
    assert load(text, drawn=job.drawn) == job
    assert load(job.job_yaml) == job
    assert read_drawn(Path("job.yaml")) == job.drawn


def test_a_job_that_grew_draws_only_what_is_new(load):
    job = load(HEAD + "sweep: {seed: [random, random]}\n", drawn=(7,))
    assert job.drawn[0] == 7 == swept(job, "seed")[0]
    assert len(job.drawn) == 2


def test_random_seed_with_several_seeds(load):
    job = load(HEAD + "seed: random\nseeds: 2\n", drawn=(9,))
    assert swept(job, "seed") == [9, 10]


def test_seeds_that_a_run_does_not_need_are_handed_on(load):
    text = HEAD + "seed: random\n"
    drawn = load(text).drawn
    fixed = load(text, "seed=5", drawn=drawn)
    assert fixed.base["seed"] == 5
    Path("results.yaml").write_text(fixed.job_yaml)
    assert read_drawn(Path("results.yaml")) == drawn
    assert load(text, drawn=drawn).base["seed"] == drawn[0]
    without = f"name: x\n{HEAD}"
    assert load(without, drawn=drawn).job_yaml == f"{without}drawn_seeds:\n- {drawn[0]}\n"


def test_nothing_drawn_without_a_file():
    assert read_drawn(Path("there/is/none.yaml")) == ()


# ---- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "base", "axes"),
    [
        (["steps=3"], {"steps": 3}, {"cfg_scale": [1.0, 2.0]}),
        (["steps=3", "steps = 4"], {"steps": 4}, {"cfg_scale": [1.0, 2.0]}),
        (["cfg_scale=5"], {}, {"cfg_scale": [5.0]}),
        (["cfg_scale=1-5 (+2)"], {}, {"cfg_scale": [1.0, 3.0, 5.0]}),
        (["steps=3-5"], {}, {"cfg_scale": [1.0, 2.0], "steps": [3, 4, 5]}),
        (["sampler=Euler, Heun"], {}, {"cfg_scale": [1.0, 2.0], "sampler": ["Euler", "Heun"]}),
        (["prompt=dogs = cats, 5"], {"prompt": "dogs = cats, 5"}, {"cfg_scale": [1.0, 2.0]}),
        (["seeds=2", "seed=7"], {"seed": 7}, {"cfg_scale": [1.0, 2.0], "seed": [7, 8]}),
        (["seeds=2", "seed=7-9"], {}, {"cfg_scale": [1.0, 2.0], "seed": [7, 8, 9]}),
    ],
)
def test_options_override_settings_and_axes(load, options, base, axes):
    job = load(HEAD + "sweep:\n  cfg_scale: [1, 2]\n", *options)
    assert {axis.name: swept(job, axis.name) for axis in job.axes} == axes
    assert {name: job.base[name] for name in base} == base
    assert load(job.job_yaml) == job


def test_options_can_make_the_first_axis_and_name_the_job(load):
    job = load(HEAD, "name=other", "steps=1,2")
    assert (job.name, swept(job, "steps")) == ("other", [1, 2])
    assert load(job.job_yaml) == job


def test_a_job_without_options_or_draws_is_kept_as_it_is(load):
    text = "# mine\nname: x\n" + HEAD
    assert load(text).job_yaml == text


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("steps=3", "steps: 3"),
        ("cfg_scale=1.50", "cfg_scale: 1.50"),
        ("cfg_scale=.5", "cfg_scale: .5"),
        ("steps=1e2", "steps: 1e2"),
        ("seeds=2", "seeds: 2"),
        ("steps=4-6", "steps: 4-6"),
        ("model=1234567890", "model: '1234567890'"),
        ("prompt=2023", "prompt: '2023'"),
        ("seed=random", "seed: random"),
    ],
)
def test_options_are_written_into_the_job_as_typed(load, option, line):
    job = load(HEAD, option)
    assert line in map(str.strip, job.job_yaml.splitlines())
    assert load(job.job_yaml) == job


def test_numbers_of_the_file_are_written_back_as_typed(load):
    job = load("model: 1234567890\nprompt: 1.50\nnegative_prompt: '2'\ncfg_scale: 1.50\n", "steps=3")
    assert "model: 1234567890\nprompt: 1.50\nnegative_prompt: '2'\ncfg_scale: 1.50\n" in job.job_yaml
    assert load(job.job_yaml) == job


quirky = st.one_of(
    st.sampled_from(
        ["yes", "null", "~", "1_0", "0x1F", "1e3", "- a", "a: b", "#x", "'", '"', "2020-01-01", "=", "<<"]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30),
)


@given(prompt=quirky, put=st.lists(quirky, min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_the_job_as_run_gives_the_same_cells(load, prompt, put):
    sweep = f"sweep: {{prompt: {json.dumps(put, ensure_ascii=False)}, steps: [1, 2.0], seed: [random, 5]}}\n"
    job = load(
        f"model: tiny-cats\nprompt: {json.dumps(prompt, ensure_ascii=False)}\n{sweep}", "cfg_scale=1.50"
    )
    assert load(job.job_yaml) == job
    assert compile_job(load(job.job_yaml)).cells == compile_job(job).cells


# ---- mistakes --------------------------------------------------------------------------------------------

PLAIN = [
    ("steps: 0", "steps: 0 is not allowed; a whole number from 1 to 1000"),
    ("steps: 1001", "steps: 1001 is not allowed; a whole number from 1 to 1000"),
    ("steps: 2.5", "steps: 2.5 is not allowed; a whole number from 1 to 1000"),
    ("steps: yes", "steps: 'yes' is not a number or a range; a whole number from 1 to 1000"),
    ("steps:", "steps: no value is given; a whole number from 1 to 1000"),
    ("steps: ' '", "steps: no value is given; a whole number from 1 to 1000"),
    ("sweep: {steps: }", "steps: no value is given; a whole number from 1 to 1000"),
    ("sweep: {steps: [3, ~]}", "steps: no value is given; a whole number from 1 to 1000"),
    ("sweep: {steps: '3,,4'}", "steps: '' is not a number or a range; a whole number from 1 to 1000"),
    ("steps: 1-3", "steps: '1-3' is several values; they belong under sweep"),
    ("steps: [1, 2]", "steps: a list is not allowed here; several values belong under sweep"),
    ("steps: {a: 1}", "steps: a mapping is not allowed here; several values belong under sweep"),
    ("cfg_scale: 100.5", "cfg_scale: 100.5 is not allowed; a number from 0 to 100"),
    ("cfg_scale: -1", "cfg_scale: -1 is not allowed; a number from 0 to 100"),
    ("cfg_scale: .nan", "cfg_scale: '.nan' is not a number or a range; a number from 0 to 100"),
    ("width: 65", "width: 65 is not allowed; a multiple of 8 from 16 to 8192"),
    ("height: 8200", "height: 8200 is not allowed; a multiple of 8 from 16 to 8192"),
    ("clip_skip: 13", "clip_skip: 13 is not allowed; a whole number from 1 to 12"),
    (f"seed: {MAX_SEED + 1}",
     f"seed: {MAX_SEED + 1} is not allowed; a whole number from 0 to {MAX_SEED}, or random"),
    ("seed: -2", f"seed: -2 is not allowed; a whole number from 0 to {MAX_SEED}, or random"),
    ("precision: fp8", "precision: 'fp8' is not known (auto, fp32, fp16 or bf16)"),
    ("sampler: Euler b",
     "sampler: 'Euler b' is not known; did you mean 'Euler a'? (farm samplers lists them)"),
    ("sampler: xyz",
     "sampler: 'xyz' is not known (farm samplers lists them; a plugin under plugins: can add more)"),
    ("schedule: xyz",
     "schedule: 'xyz' is not known (farm schedules lists them; a plugin under plugins: can add more)"),
    ("sampler:", "sampler: no value is given (farm samplers lists them)"),
    ("samplr: Euler", "a job has no key 'samplr'; did you mean 'sampler'?"),
    ("size: 64", "a job has no key 'size'; did you mean 'width' and 'height'?"),
    ("cfg: 7", "a job has no key 'cfg'; did you mean 'cfg_scale'?"),
    ("sweep: {cfg: [7]}", "sweep: cfg is not a setting; did you mean 'cfg_scale'? (an axis of your own is "
     "a list of mappings with a title)"),
    ("name: ../x", "name: '../x' cannot name a folder; letters, digits, - _ and . can, up to 100 of them"),
    ("seeds: 0", "seeds: 0 is not allowed; a whole number from 1 to 10000"),
    ("seeds: 1e3", "seeds: 1e3 is not allowed; a whole number from 1 to 10000"),
    ("sweep: 3", "sweep: a mapping is wanted"),
    ("sweep: {steps: []}", "steps: the list is empty"),
    ("sweep: {steps: [[1]]}", "steps: a list inside a list is not allowed"),
    ("sweep: {steps: {a: 1}}", "steps: a mapping is not allowed; values such as [5, 10, 20]"),
    ("sweep: {steps: 0-3}", "steps: 0 is not allowed; a whole number from 1 to 1000"),
    ("sweep: {width: 64-66}", "width: 65 is not allowed; a multiple of 8 from 16 to 8192"),
    ("sweep: {steps: 9-1}",
     "steps: '9-1' runs the wrong way; its step would have to be like (-1); a whole number from 1 to 1000"),
    ("sweep: {steps: [1, 3, ..., 10]}",
     "steps: '1, 3, ...' does not arrive at 10; a whole number from 1 to 1000"),
    ("sweep: {seed: [0-6000, 1-6000]}", f"seed: more than {MAX_VALUES} values are not allowed"),
    ("sweep: {seed: 1-2000, width: 16-8192 (+8)}",
     f"sweep: makes 2046000 cells; at most {MAX_CELLS} are allowed"),
    ("sweep: {sampler: [Euler, Eulr]}",
     "sampler: 'Eulr' is not known; did you mean 'Euler'? (farm samplers lists them)"),
    ("sweep: {sampler: '\"Euler'}",
     "sampler: '\"Euler' has quotes that do not match: unexpected end of data"),
    ("sweep: {smapler: [Euler]}",
     "sweep: smapler is not a setting; did you mean 'sampler'? "
     "(an axis of your own is a list of mappings with a title)"),
    ("sweep: {look: [{cfg_scale: 3}]}", "look: a mapping needs a title and settings"),
    ("sweep: {look: [{title: A}]}", "look: a mapping needs settings beside its title"),
    ("sweep: {look: [{title: A, stps: 3}]}", "look: stps is not a setting; did you mean 'steps'?"),
    ("sweep: {look: [{title: A, steps: 1}, {title: A, steps: 2}]}", "look: the title 'A' stands twice"),
    ("sweep: {look: [{title: A, steps: 1-3}]}", "steps: '1-3' is several values; they belong under sweep"),
    ("sweep: {replace: {dog: [a]}}", "replace: 'dog' is in neither the prompt nor the negative prompt"),
    ("sweep: {replace: {'': [a]}}", "replace: the text searched for is empty"),
    ("sweep: {replace: [cat]}",
     "replace: searched texts with what is put in their place, as in {cat: [cat, dog]}"),
    ("sweep: {replace: {cat: [{title: a}]}}", "replace cat: only plain values are allowed here"),
    ("sweep: {zip: {seed: [1, 2], steps: [1]}}",
     "zip: as many values are wanted for each setting; there are: seed 2, steps 1"),
    ("sweep: {zip: {sed: [1, 2]}}", "zip: sed is not a setting; did you mean 'seed'?"),
    ("sweep: {zip: 3}", "zip: settings with their values, as in {sampler: [Euler a, Heun], steps: [20, 10]}"),
    ("sweep: {steps: [1, 2], zip: {steps: [1], seed: [1]}}",
     "steps + seed: sets steps, which the axis 'steps' sets as well"),
    ("sweep: {zip: [{steps: [1], seed: [1]}, {steps: [2], seed: [1]}]}",
     "sweep: there are two axes called 'steps + seed'"),
    ("skip: [{steps: foo}]", "steps: 'foo' is not a number or a range; a whole number from 1 to 1000"),
    ("skip: [{steps: '> a'}]", "skip: steps: 'a' is not a number or a range"),
    ("skip: [{steps: '> 1-3'}]", "skip: steps: '1-3' is a range; a comparison takes one number"),
    ("skip: [{seed: random}]", "skip: seed: 'random' is not a value that combinations have"),
    ("skip: [{cfgscale: 3}]", "skip: cfgscale is neither a setting nor an axis; did you mean 'cfg_scale'?"),
    ("skip: [3]", "skip: a rule is a mapping of conditions, as in {sampler: Heun, steps: '> 20'}"),
    ("skip: {steps: 3}", "skip: a list is wanted"),
    ("skip: [{steps: {a: 1}}]", "skip: steps: a value or a list of values is wanted"),
    ("sheet: {columns: steps}", "sheet: columns: 'steps' is not an axis; there are no axes"),
    ("sheet: {size: 3}",
     "sheet has no key 'size'; there are columns, rows, super_columns, super_rows, pages"),
    ("sheet: {row: x}", "sheet has no key 'row'; did you mean 'rows'?"),
    ("sheet: {rows: [a]}", "sheet.rows: a text is wanted"),
    ("plugins: {sharp: {}}", "plugins: 'sharp' is not known; did you mean 'sharpness'?"),
    ("plugins: {xyz: {}}", "plugins: 'xyz' is not known; there are lanczos, sharpness"),
    ("plugins: {lanczos: {scale: 9}}",
     "plugins.lanczos.scale: 9 is not allowed; input should be less than or equal to 4"),
    ("plugins: {lanczos: {scal: 2}}", "plugins.lanczos has no setting 'scal'; did you mean 'scale'?"),
    ("plugins: {lanczos: 3}", "plugins.lanczos: 3 is not allowed; a mapping of settings is wanted"),
    ("plugins: {lanczos: false}", "plugins.lanczos: False is not allowed; a mapping of settings is wanted"),
    ("plugins: {lanczos: ''}", "plugins.lanczos: '' is not allowed; a mapping of settings is wanted"),
    ("plugins: {lanczos: []}", "plugins.lanczos: [] is not allowed; a mapping of settings is wanted"),
    ("plugins: {lanczos: {limits: 3}}",
     "plugins.lanczos.limits: 3 is not allowed; a mapping of settings is wanted"),
    ("plugins: {sharpness: {a: 2}}", "plugins.sharpness has no setting 'a'; there are none"),
    ("drawn_seeds: [x]", f"drawn_seeds: whole numbers from 0 to {MAX_SEED} are wanted"),
    ("prompt: b", "prompt: stands here again, it is in line 2 already"),
    ("steps: !!python/name:os.system 3", "the tag 'tag:yaml.org,2002:python/name:os.system' is not allowed"),
    ("? [a]\n: 3", "a key must be a text"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), PLAIN, ids=[line for line, _ in PLAIN])
def test_mistakes(mistakes, line, message):
    found = mistakes(f"{HEAD}{line}\n")
    assert f"job.yaml:3: {message}" in found
    assert len(found) == 1 or line.startswith(("sheet: {row", "? "))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "job.yaml:1: model is missing"),
        ("- a\n", "job.yaml:1: a job is a mapping, with lines such as `steps: 20`"),
        (
            "steps: [1\nseed: 2\n",
            "job.yaml:2: this is not YAML: while parsing a flow sequence, expected ',' or ']', but got ':'",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "job.yaml:2: this is not YAML: expected a single document in the stream, but found",
        ),
        ("a: *nope\n", "job.yaml:1: this is not YAML: found undefined alias 'nope'"),
        (b"\xff\xfe\x00", "job.yaml: is not UTF-8 text"),
        (b"a: \x00", "job.yaml: unacceptable character #x0000: special characters are not allowed in"),
        ("#" * (MAX_BYTES + 1), "job.yaml: is larger than 4096 KiB"),
        ("[" * 500, "job.yaml: is nested too deeply"),
        ("a: &a [*a]\n", "job.yaml: expands to more than 100000 entries, aliases included"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{this}: &{this} [{', '.join([f'*{last}'] * 10)}]\n"
                for last, this in zip("abcdefgh", "bcdefghi")
            ),
            "job.yaml: expands to more than 100000 entries, aliases included",
        ),
    ],
    ids=lambda value: str(value)[:20],
)
def test_files_that_are_no_jobs(mistakes, text, message):
    assert mistakes(text)[0].startswith(message)


def test_a_missing_file(tmp_path):
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        load_job(tmp_path / "none.yaml", VOCABULARY)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("steps=0", "steps: 0 is not allowed; a whole number from 1 to 1000"),
        ("stps=3", "stps is not a setting; did you mean 'steps'?"),
        ("steps", "NAME=VALUE is wanted, as in steps=20"),
        ("cfg_scale=x", "cfg_scale: 'x' is not a number or a range; a number from 0 to 100"),
        ("seed=4", "seed is set by the axis 'seed + clip_skip'"),
        ("seed=4-5", "seed: sets seed, which the axis 'seed + clip_skip' sets as well"),
        ("prompt=\udcff", r"prompt: '\udcff' is not a valid text"),
        (
            "name=con.txt",
            "name: 'con.txt' cannot name a folder; letters, digits, - _ and . can, up to 100 of them",
        ),
    ],
)
def test_mistakes_in_options(mistakes, option, message):
    text = HEAD + "sweep:\n  cfg_scale: [1]\n  zip: {seed: [1, 2], clip_skip: [1, 2]}\n"
    assert mistakes(text, option) == [f"--set {option}: {message}"]


def test_the_keys_that_are_listed_are_those_that_people_write(mistakes):
    [found] = mistakes(f"{HEAD}xyz: 3\n")
    assert "; there are name, seeds, sweep, " in found and "drawn_seeds" not in found
    [found] = mistakes(f"{HEAD}drawn_seed: 3\n")
    assert "did you mean 'drawn_seeds'" not in found


def test_all_mistakes_at_once_in_the_order_of_the_file(mistakes):
    found = mistakes(
        f"{HEAD}steps: 0\nsweep:\n  sampler:\n    - Eulr\n    - Heun\n    - foo\nwidth: 1\n", "seed=x"
    )
    assert [line.partition(": ")[0] for line in found] == [
        "job.yaml:3", "job.yaml:6", "job.yaml:8", "job.yaml:9", "--set seed=x",
    ]  # fmt: skip


def test_a_wrong_axis_is_not_a_mistake_of_those_who_speak_of_it(mistakes):
    found = mistakes(
        HEAD
        + "sweep:\n  look: [{title: A, cfg_scale: x}]\n  stepz: [1]\nsheet: {rows: stepz, columns: look}\n"
    )
    assert [line.partition(": ")[0] for line in found] == ["job.yaml:4", "job.yaml:5"]


def test_ambiguous_and_unknown_models(mistakes):
    assert mistakes("model: same\nprompt: x\n") == [
        "job.yaml:1: model: 'same' may be any of 'sub/one', 'sub/two'"
    ]
    assert mistakes("model: tiny-cat\nprompt: x\n") == [
        "job.yaml:1: model: 'tiny-cat' is not known; did you mean 'tiny-cats'? "
        "(farm models checkpoint lists them)"
    ]


def test_what_is_given_nowhere(mistakes, load):
    assert mistakes("steps: 3\n") == ["job.yaml:1: model is missing", "job.yaml:1: prompt is missing"]
    half = "model: tiny-cats\nsweep: {look: [{title: A, prompt: x}, {title: B, steps: 3}]}\n"
    assert mistakes(half) == ["job.yaml:1: prompt is missing"]
    assert swept(load("sweep: {model: tiny-cats, prompt: [a]}\n"), "prompt") == ["a"]


def test_long_texts(mistakes, load):
    assert (
        len(load(f"{HEAD}negative_prompt: {'x' * MAX_PROMPT_BYTES}\n").base["negative_prompt"])
        == MAX_PROMPT_BYTES
    )
    assert mistakes(f"{HEAD}negative_prompt: {'ü' * MAX_PROMPT_BYTES}\n") == [
        "job.yaml:3: negative_prompt: a text of 200000 bytes is not allowed; at most 100000"
    ]


@pytest.mark.parametrize("name", ["a", "cat-samplers_2.1", "_x", "console", "com10", "A" * 100])
def test_names_of_jobs(load, name):
    assert load(f"name: {name}\n{HEAD}").name == name


@pytest.mark.parametrize(
    "name",
    ["..", ".hidden", "a/b", "/a", "a\\b", "C:", "a b", "a.", "-x", "CON", "nul.txt", "Com1", "ü", "A" * 101,
     "index.html", "a\u0000b", "x\u2028"],
)  # fmt: skip
def test_names_that_are_no_folders(mistakes, name):
    [found] = mistakes(f"name: {json.dumps(name)}\n{HEAD}")
    assert re.match(r"job\.yaml:1: name: '.*' cannot name a folder", found)


def test_a_file_whose_name_is_no_folder_needs_a_name_inside(tmp_path):
    path = tmp_path / "my cats (1).yaml"
    path.write_text(HEAD)
    with pytest.raises(BadInput) as caught:
        load_job(path, VOCABULARY)
    assert str(caught.value) == (
        f"{path}:1: name: 'my cats (1)' cannot name a folder; letters, digits, - _ and . can, up to 100 of "
        "them; the file is called so: write another name into it, as in `name: cats`"
    )
    path.write_text(f"{HEAD}name: cats\n")
    assert load_job(path, VOCABULARY).name == "cats"


@given(st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_a_job_or_is_turned_down(load, text):
    for source in (text, f"{HEAD}sweep: {text}", f"{HEAD}sweep:\n  steps: {text}", f"{HEAD}plugins: {text}"):
        try:
            load(source.encode(errors="surrogatepass"))
        except BadInput as error:
            assert error.problems


# ---- the examples ----------------------------------------------------------------------------------------


def test_the_schema_beside_the_examples_is_ours():
    assert json.loads((JOBS / "farm.schema.json").read_text(encoding="utf-8")) == job_schema()


@pytest.mark.parametrize("path", sorted(JOBS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_examples_follow_the_schema(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=./farm.schema.json\n")
    jsonschema.validate(YAML(typ="safe").load(text), job_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("samplr: Euler", []),
        ("steps: 0", ["steps"]),
        ("width: 65", ["width"]),
        ("sweep: {smapler: [Euler]}", ["sweep", "smapler", 0]),
        ("sweep: {look: [{cfg_scale: 3}]}", ["sweep", "look", 0]),
        ("sheet: {row: x}", ["sheet"]),
        ("skip: {steps: 3}", ["skip"]),
    ],
)
def test_the_schema_finds_mistakes(text, path):
    error, *_ = jsonschema.Draft202012Validator(job_schema()).iter_errors(YAML(typ="safe").load(text))
    assert list(error.absolute_path) == path


@pytest.mark.parametrize("name", ["zero_terminal_snr", "discard_next_to_last_sigma"])
@pytest.mark.parametrize("written", ["true", "off", "on", "yes", "no", "auto", "automatic", "maybe", "3"])
def test_the_schema_takes_the_choices_that_the_loader_takes(load, name, written):
    text = f"{HEAD}{name}: {written}\n"
    try:
        load(text)
        taken = True
    except BadInput:
        taken = False
    validator = jsonschema.Draft202012Validator(job_schema())
    assert taken == validator.is_valid(YAML(typ="safe").load(text)) == (written not in ("maybe", "3"))
