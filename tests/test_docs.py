import re
from pathlib import Path

import pytest

from farm.job import Vocabulary, load_job
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
