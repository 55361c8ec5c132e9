import re
from pathlib import Path

import pytest

from farm.document import Mistakes
from farm.job import Vocabulary, load_job
from farm.kinds import Reading, Seeds
from farm.misnamed import NOT_HERE
from farm.plan import compile_job
from farm.settings import SETTINGS

ROOT = Path(__file__).parents[1]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("benchmarks/*.md"),
    *ROOT.glob("tools/*/README.md"),
]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_setting_is_in_the_docs():
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(SETTINGS)


def test_the_names_that_are_not_here_are_in_the_docs():
    page = " ".join((ROOT / "docs" / "jobs.md").read_text(encoding="utf-8").casefold().split())
    assert [name for name in NOT_HERE if name not in page] == []


def test_the_generators_of_noise_are_in_the_docs():
    [row] = re.findall(
        r"^\| `rng` .*$", (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    known = SETTINGS["rng"].known(Reading({}, Seeds(), Mistakes()))
    assert [
        name for first, others in known.items() for name in (first, *others) if f"`{name}`" not in row
    ] == []


SNIPPETS = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "samplers.md").read_text("utf-8"), re.M | re.S)


def cells_of(snippet, folder):
    path = folder / "job.yaml"
    path.write_text(f"model: cats\nprompt: a cat\n{snippet}", encoding="utf-8")
    return compile_job(load_job(path, Vocabulary(models={"cats": ()}, plugins={}))).cells


def test_steps_at_equal_cost_are_those_of_the_docs(tmp_path):
    [snippet] = [snippet for snippet in SNIPPETS if snippet.startswith("evaluations")]
    said = dict(re.findall(r"(\w+) (\d+)", snippet.partition("#")[2].partition("\n")[0]))
    assert said == {cell.settings.sampler: str(cell.settings.steps) for cell in cells_of(snippet, tmp_path)}


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_every_example_of_samplers_is_right(tmp_path, snippet):
    assert cells_of(snippet, tmp_path)


SECTION = (
    (ROOT / "docs" / "jobs.md").read_text("utf-8").partition("## Prompts as axes")[2].partition("\n## ")[0]
)


@pytest.mark.parametrize("snippet", re.findall(r"^```yaml\n(.*?)^```", SECTION, re.M | re.S))
def test_every_example_of_prompts_as_axes_is_right(tmp_path, snippet):
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    (tmp_path / "styles.csv").write_text("name,prompt\ncinematic,moody\nink,drawn\n")
    snippet = snippet if "\nprompt:" in f"\n{snippet}" else f"prompt: a cat\n{snippet}"
    (tmp_path / "job.yaml").write_text(f"model: cats\n{snippet}", encoding="utf-8")
    plan = compile_job(load_job(tmp_path / "job.yaml", Vocabulary(models={"cats": ()}, plugins={})))
    assert len({cell.settings.prompt for cell in plan.cells}) > 1
