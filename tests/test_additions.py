import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from farm.additions import FIELDS, OPTIONS, SCHEDULE_OPTIONS, BadRow, check_added, extended
from farm.cell import Cell, PluginUse, Settings
from farm.chain import Chain
from farm.errors import BadInput, CellFailed
from farm.hooks import Sampler, Schedule
from farm.job import Vocabulary, load_job
from farm.plan import compile_job
from farm.plugins import PluginError, find_plugins
from farm.render.recipes import OPTIONS as HANDED
from farm.sampling import BUILT_IN, SCHEDULES

DOCS = Path(__file__).parents[1] / "docs" / "plugins.md"


def algorithm(x, sigmas, noise):
    yield


def sampler(**changes) -> Sampler:
    row = Sampler("Mine", algorithm, ("my",), 1, lambda steps: steps, False, "here")
    return replace(row, **changes)


def schedule(**changes) -> Schedule:
    return replace(Schedule("mine", "Mine's", lambda model, steps: [1.0] * steps, "here"), **changes)


@pytest.mark.parametrize(
    ("samplers", "schedules", "message"),
    [
        (None, (), "samplers gave None, not a list of farm.hooks.Sampler"),
        ([3], (), "samplers gave [3], not a list of farm.hooks.Sampler"),
        ([], [sampler()], "not a list of farm.hooks.Schedule"),
        ([sampler(name="Euler")], (), "sampler 'Euler' is there already"),
        ([sampler(aliases=("K_EULER",))], (), "sampler 'K_EULER' is there already"),
        ([sampler(name="Euler Karras")], (), "sampler 'Euler Karras' is there already"),
        ([sampler(), sampler(aliases=())], (), "sampler 'Mine' is there already"),
        ([sampler(name="all")], (), "sampler 'all' is no name that jobs could write"),
        ([sampler(name="a, b")], (), "sampler 'a, b' is no name"),
        ([sampler(name="diffusers:X")], (), "sampler 'diffusers:X' is no name"),
        ([sampler(algorithm="euler")], (), "sampler 'Mine': algorithm is 'euler', not a"),
        ([sampler(options=("etta",))], (), "sampler 'Mine': there is no option 'etta'; there are"),
        ([sampler(options=("eta",))], (), "has eta among its options, but does not say what it usually is"),
        ([sampler(evaluations=lambda steps: steps / 2)], (), "evaluations of 1 and 20 steps are [0.5, 10.0]"),
        ([sampler(schedule="mine")], (), "sampler 'Mine' has the schedule 'mine', which is not there"),
        ([], [schedule(name="karras")], "schedule 'karras' is there already"),
        ([], [schedule(title="Karras")], "schedule 'karras' is there already"),
        ([], [schedule(name="automatic")], "schedule 'automatic' is no name"),
        ([], [schedule(function="karras")], "schedule 'mine': function is 'karras', not a function of the"),
        ([], [schedule(options=("steps",))], "schedule 'mine': there is no option 'steps'; there"),
        ([], [schedule(steps=5)], "schedule 'mine': steps is 5, not a function of the steps"),
        ([], [schedule(steps=lambda steps: steps / 2)], "schedule 'mine': steps of 1 and 20 steps are [0.5"),
        ([], [schedule(steps=lambda: 3)], "schedule 'mine': steps of 1 and 20 steps fail with TypeError: "),
        ([], [schedule(title=None)], "schedule 'mine': title is None, not a text of one line"),
        ([], [schedule(options=["rho"])], "schedule 'mine': options is ['rho'], not a tuple of texts"),
        ([sampler(name=5)], (), "sampler 5: name is 5, not a text of one line"),
        ([sampler(name="Mid\npoint")], (), r"sampler 'Mid\npoint': name is 'Mid\npoint', not a text of one"),
        ([sampler(name="Mid ")], (), "sampler 'Mid ': name is 'Mid ', not a text of one line"),
        ([sampler(aliases="mid")], (), "sampler 'Mine': aliases is 'mid', not a tuple of texts, as in"),
        ([sampler(aliases=("a\tb",))], (), r"sampler 'Mine': aliases is ('a\tb',), not a tuple of texts"),
        ([sampler(distilled_at=2000)], (), "sampler 'Mine': distilled_at is 2000, not 0 or a divisor"),
        ([sampler(order="two")], (), "sampler 'Mine': order is 'two', not a whole number above 0"),
        ([sampler(evaluations=2)], (), "sampler 'Mine': evaluations is 2, not a function of the steps"),
        ([sampler(evaluations=lambda steps: True)], (), "evaluations of 1 and 20 steps are [True, True]"),
        ([sampler(stochastic="no")], (), "sampler 'Mine': stochastic is 'no', not True or False"),
        ([sampler(eta="half")], (), "sampler 'Mine': eta is 'half', not a number from 0 on, or None"),
        ([sampler(fixed=[1])], (), "sampler 'Mine': fixed is [1], not a mapping of arguments"),
        ([sampler(name="Euler Twice")], [schedule(title="Twice")], "sampler 'euler twice' could be two"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(samplers, schedules, message):
    with pytest.raises(BadRow, match=re.escape(message)) as caught:
        check_added(samplers, schedules)
    assert len(str(caught.value).splitlines()) == 1


def test_every_field_of_a_row_is_checked():
    assert set(FIELDS) == {field.name for row in (Sampler, Schedule) for field in fields(row)}


def test_the_built_in_rows_would_pass():
    for row in BUILT_IN.samplers:
        check_added([replace(row, name="Mine", aliases=(), algorithm=algorithm)], ())
    for row in SCHEDULES:
        check_added((), [replace(row, name="mine", title="Mine's", function=algorithm)])


def test_rows_are_added():
    more = extended(BUILT_IN, [sampler(schedule="mine")], [schedule()])
    assert more.find("MY")[0].name == "Mine"
    assert more.find("Euler Mine's") == (BUILT_IN["Euler"], "mine")
    assert more.find("Mine Karras")[1] == "karras"
    assert extended(BUILT_IN, (), ()) is BUILT_IN
    with pytest.raises(BadRow, match="'Mine' is there already"):
        extended(more, [sampler()], [])


def test_options_are_those_that_there_are():
    assert set(OPTIONS) == set(HANDED)
    assert set(SCHEDULE_OPTIONS) == {option for row in SCHEDULES for option in row.options}


def example() -> str:
    [code] = [
        code
        for code in re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.S)
        if "Midpoint" in code
    ]
    return code


@pytest.fixture
def plugins(tmp_path):
    (tmp_path / "midpoint.py").write_text(example(), encoding="utf-8")
    return tmp_path


def job(folder, text):
    path = folder / "job.yaml"
    path.write_text(f"model: cats\nprompt: a cat\n{text}", encoding="utf-8")
    return compile_job(load_job(path, Vocabulary({"cats": ()}, find_plugins([folder]))))


def test_a_job_names_what_its_plugin_adds(plugins):
    plan = job(plugins, "plugins: {midpoint: }\nsweep: {sampler: [mid, Euler Squares, Midpoint Karras]}")
    found = [
        (cell.settings.sampler, cell.settings.schedule) for cell in sorted(plan.cells, key=lambda c: c.number)
    ]
    assert found == [("Midpoint", "uniform"), ("Euler", "squares"), ("Midpoint", "karras")]
    assert plan.cells[0].plugins[0].touches_pixels
    assert plan.evaluations() == sum(cell.evaluations for cell in plan.cells) == 40 + 20 + 40
    assert plan.rows() == 200 - plan.shared_rows()
    plan = job(plugins, "plugins: {midpoint: }\nevaluations: 20\nsampler: mid")
    assert plan.cells[0].settings.steps == 10


def test_a_job_without_the_plugin_cannot(plugins):
    with pytest.raises(BadInput, match="sampler: 'Midpoint' is not known"):
        job(plugins, "sampler: Midpoint")


def test_two_plugins_with_one_name_are_a_mistake_of_the_job(plugins):
    (plugins / "other.py").write_text(example(), encoding="utf-8")
    with pytest.raises(BadInput, match=r"job.yaml:5: plugins: other: schedule 'squares' is there already"):
        job(plugins, "plugins:\n  midpoint: {}\n  other: {}\n".replace("plugins:", "plugins:", 1))


def test_a_plugin_with_a_bad_row_is_named(plugins):
    (plugins / "bad.py").write_text(example().replace('"Midpoint"', '"Heun"'), encoding="utf-8")
    with pytest.raises(PluginError, match=r"plugin 'bad' .*: sampler 'Heun' is there already"):
        find_plugins([plugins]).load("bad")


NAMED = """\
plugins:
  midpoint: {}
schedule: squares
sweep:
  zip: {sampler: [Midpoint, Euler], cfg_scale: [1, 2]}
skip: [{sampler: mid}]
"""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_library", "cannot be loaded: ModuleNotFoundError"),
        (example().replace("order=2", "order='two'"), "sampler 'Midpoint': order is 'two', not"),
        (None, "plugins: 'midpoint' is not known"),
    ],
)
def test_a_plugin_that_cannot_be_had_is_the_only_mistake_of_who_names_what_it_adds(plugins, source, told):
    (plugins / "midpoint.py").unlink()
    if source is not None:
        (plugins / "midpoint.py").write_text(source, encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        job(plugins, NAMED)
    [problem] = caught.value.problems
    assert problem.where.endswith("job.yaml:4") and told in problem.what
    with pytest.raises(BadInput) as caught:
        job(plugins, NAMED + "sampler: diffusers:DDIM(etta=1)\nstepz: 3\n")
    assert len(caught.value.problems) == 3  # its other mistakes are told beside it


def test_a_plugin_with_wrong_settings_still_adds_its_samplers(plugins):
    with pytest.raises(BadInput) as caught:
        job(plugins, "plugins: {midpoint: {a: 1}}\nsampler: Midpoint Squares\nschedule: skwares")
    first, second = caught.value.problems
    assert "has no setting 'a'" in first.what
    assert second.what.startswith("schedule: 'skwares' is not known; did you mean 'squares'?")


def test_workers_have_the_same_samplers_or_say_why_not(plugins):
    version = find_plugins([plugins])["midpoint"].version
    use = PluginUse("midpoint", version, "{}", touches_pixels=True)
    assert Chain((use,), [plugins]).samplers["mid"].name == "Midpoint"
    assert Chain((), [plugins]).samplers is BUILT_IN
    stale = Chain((replace(use, version="0"),), [plugins])
    with pytest.raises(
        CellFailed, match="plugin 'midpoint' is version source-.* but the job was planned with 0"
    ):
        stale.samplers  # noqa: B018
    assert (
        Cell(1, (), Settings("m", "p"), (use,)).keyed("h").key
        != Cell(1, (), Settings("m", "p")).keyed("h").key
    )
