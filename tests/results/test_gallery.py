import csv
import json
import os
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from playwright.sync_api import expect, sync_playwright

from farm.plan import Layout
from farm.results.gallery import write_gallery
from farm.results.overview import write_overview
from farm.results.sheet import write_sheets
from farm.results.store import Store
from tests.browser import find_browser
from tests.results.samples import done, failed, make_plan, score

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!--<script>"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser():
    path = find_browser()
    if path is None:
        message = "no browser of the Chromium family is installed"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser):
    """A page on which every error and every word in the console fails the test."""
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.set_default_timeout(15_000)
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    page.close()
    assert said == []


def build(folder, plan, outcome=done):
    with Store(folder, plan) as store:
        for cell in plan.cells:
            result = outcome(cell)
            if result is not None:
                store.write(result)
        store.write_job()
        store.write_index()
        write_sheets(plan, store.records(), folder)
        return write_gallery(plan, store.records(), folder)


def some_fail(cell):
    return {1: failed(cell, "out of memory"), 2: None}.get(
        cell.number, done(cell, columns={"sharpness": 0.5})
    )


@pytest.fixture
def demo(tmp_path):
    plan = make_plan(
        {"sampler": ["Euler a", "Heun", "LMS"], "cfg_scale": [1, 7], "steps": [5, 20]},
        Layout("cfg_scale", "sampler", pages=("steps",)),
        skip=lambda cell: cell.coordinates == (1, 0, 1),
        plugins=[score("sharpness")],
    )
    return plan, build(tmp_path / "cats", plan, some_fail)


ALL_PICTURES = """Promise.all(
    [...document.images].filter(image => !image.complete).map(
        image => new Promise(done => ["load", "error"].forEach(end => image.addEventListener(end, done)))
    )
)"""


def open_page(page, path, link=""):
    page.goto(path.as_uri() + link)
    page.evaluate(ALL_PICTURES)  # wait_for_function asks again by eval, which the page's own policy forbids


def numbers(page):
    return page.eval_on_selector_all(
        "#grid [data-number]", "nodes => nodes.map(node => +node.dataset.number)"
    )


def fact(page, name):
    facts = dict(
        zip(page.locator("#facts dt").all_inner_texts(), page.locator("#facts dd").all_inner_texts())
    )
    return facts.get(name)


class Data(HTMLParser):
    """Reads the page as HTML is read: what is data, and what else there is."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.data, self._inside = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside = dict(attrs).get("id") == "data"

    def handle_data(self, data):
        if self._inside:
            self.data += data

    def handle_endtag(self, tag):
        self._inside = False


@pytest.mark.parametrize("field", ["prompt", "axis", "title", "error", "column", "name"])
def test_hostile_text_stays_text(tmp_path, field):
    plan = make_plan(
        {HOSTILE if field == "axis" else "mood": [HOSTILE if field == "title" else "calm"]},
        prompt=HOSTILE if field == "prompt" else "a cat",
        name=HOSTILE if field == "name" else "cats",
        plugins=[score("look")],
    )
    columns = {f"look.{HOSTILE}": HOSTILE} if field == "column" else {}
    path = build(
        tmp_path / "cats", plan,
        lambda cell: failed(cell, HOSTILE) if field == "error" else done(cell, columns=columns),
    )  # fmt: skip
    parsed = Data(path.read_text(encoding="utf-8"))
    assert "img" not in parsed.tags and parsed.tags.count("script") == 2
    assert HOSTILE in json.dumps(json.loads(parsed.data), ensure_ascii=False).replace('\\"', '"')


def test_numbers_that_json_lacks_are_data_too(tmp_path):
    path = build(
        tmp_path,
        make_plan(plugins=[score("score")]),
        lambda cell: done(cell, columns={"score": float("nan")}),
    )
    data = json.loads(Data(path.read_text(encoding="utf-8")).data, parse_constant=pytest.fail)
    assert data["cells"][0]["columns"] == {"score": "nan"}


def test_the_page_needs_nothing_but_itself_and_the_pictures(tmp_path):
    text = build(tmp_path, make_plan()).read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=|https?://|fetch\(|innerHTML|insertAdjacent|document\.write", text)


def test_the_overview_lists_every_job(tmp_path):
    for name, outcome in (("first", some_fail), ("second <b>&", done)):
        build(tmp_path / name, make_plan({"steps": [1, 2, 3]}), outcome)
    (tmp_path / "no job").mkdir()
    text = write_overview(tmp_path).read_text(encoding="utf-8")
    assert "1 done, 1 failed, 1 pending" in text and "3 done" in text
    assert "second &lt;b&gt;&amp;" in text and "<b>" not in text and "no job" not in text
    assert text.count("<img") == 2


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfes\0t\0", b'status\n"' + b"x" * 10_000_001, None],
    ids=["utf-16", "endless", "folder"],
)
def test_a_neighbour_that_cannot_be_read_is_listed_without_its_counts(tmp_path, content):
    build(tmp_path / "ours", make_plan())
    theirs = tmp_path / "theirs" / "index.csv"
    theirs.parent.mkdir()
    theirs.mkdir() if content is None else theirs.write_bytes(content)
    text = write_overview(tmp_path).read_text(encoding="utf-8")
    assert "1 done" in text and "<strong>theirs</strong><br><br>" in text


@pytest.mark.slow
def test_a_job_with_a_very_long_prompt_is_counted_and_other_readers_keep_their_limit(tmp_path):
    limit = csv.field_size_limit()
    build(tmp_path / "long", make_plan(prompt="cat " * 50_000), lambda cell: None)
    assert "1 pending" in write_overview(tmp_path).read_text(encoding="utf-8")
    assert csv.field_size_limit() == limit


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_job_in_a_folder_whose_name_is_no_text_is_linked(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    build(tmp_path / "good", make_plan())
    (tmp_path / "good" / "index.csv").rename(tmp_path / os.fsdecode(b"caf\xe9") / "index.csv")
    assert 'href="caf%E9/index.html"' in write_overview(tmp_path).read_text(encoding="utf-8")


def test_an_overview_of_nothing(tmp_path):
    assert "0 jobs in this folder" in write_overview(tmp_path / "results").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_table_shows_the_layout_of_the_job(page, demo):
    plan, path = demo
    open_page(page, path)
    assert page.locator("thead th .label").all_inner_texts() == ["1", "7"]
    assert page.locator("tbody th .label").all_inner_texts() == ["Euler a", "Heun", "LMS"]
    first = [cell.number for cell in plan.cells if cell.settings.steps == 5]
    assert numbers(page) == first
    assert (
        page.locator("#grid img").evaluate_all("images => images.map(image => image.naturalWidth)")
        == [64] * 5
    )
    assert page.locator(".failed").inner_text() == "failed: out of memory"
    assert "9 done, 1 failed, 1 pending" in page.locator("#counts").inner_text()


@pytest.mark.slow
def test_every_cell_can_be_reached_with_any_choice_of_axes(page, demo):
    plan, path = demo
    open_page(page, path)
    names = [axis.name for axis in plan.axes]
    for x, y in [(0, 1), (1, 2), (2, 0), (-1, 0), (2, -1), (-1, -1)]:
        page.select_option("#axis-x", str(x))
        page.select_option("#axis-y", str(y))
        if page.input_value("#axis-x") != str(x):  # choosing the other side's axis swapped the two
            page.select_option("#axis-x", str(x))
        assert (page.input_value("#axis-x"), page.input_value("#axis-y")) == (str(x), str(y))
        rest = [index for index in range(len(names)) if index not in (x, y)]
        assert page.locator("#controls select[id^=value-]").count() == len(rest)
        assert reached(page, plan, rest) == sorted(cell.number for cell in plan.cells)


def reached(page, plan, rest):
    if not rest:
        return sorted(numbers(page))
    found = []
    for value in range(len(plan.axes[rest[0]].values)):
        page.select_option(f"#value-{rest[0]}", index=value)  # a string would match labels too
        found += reached(page, plan, rest[1:])
    return sorted(found)


def test_the_heading_says_what_was_asked_though_it_does_not_matter_to_every_cell(tmp_path):
    plan = replace(make_plan({"cfg_scale": [1, 7]}), asked={"steps": 10, "eta": 0.5, "evaluations": 40})
    text = write_gallery(plan, {}, tmp_path).read_text(encoding="utf-8")
    said = json.loads(re.search(r'"heading":(\{[^}]*\})', text)[1])
    assert (said["steps"], said["eta"], said["evaluations"]) == (10, 0.5, 40)
    assert said["model"] == "tiny-cats" and "cfg_scale" not in said and "s_noise" not in said


def test_the_heading_and_the_labels_say_what_cells_draw(tmp_path):
    plan = make_plan({"seed": [1, 2], "cfg_scale": [1, 7]})
    prompts = {cell.number: f"a {('red', 'blue')[cell.coordinates[0]]} cat" for cell in plan.cells}
    cells = [
        replace(cell, settings=replace(cell.settings, prompt=prompts[cell.number])) for cell in plan.cells
    ]
    text = write_gallery(replace(plan, cells=tuple(cells)), {}, tmp_path).read_text(encoding="utf-8")
    said = json.loads(re.search(r'"heading":(\{[^}]*\})', text)[1])
    assert said["prompt"] == "a … cat" and "negative_prompt" not in said
    axes = json.loads(re.search(r'"axes":(\[.*?\}\])', text)[1])
    assert axes[0]["titles"] == ["1 · red", "2 · blue"] and axes[1]["titles"] == ["1", "7"]


@pytest.mark.slow
def test_a_click_shows_everything_about_a_cell_and_arrows_move_on(page, demo):
    plan, path = demo
    open_page(page, path)
    page.click("[data-number='6']")
    assert page.locator("#heading").inner_text() == "Cell 6 – sampler: Heun, cfg_scale: 7, steps: 5"
    assert fact(page, "sampler") == "Heun" and fact(page, "sharpness") == "0.5"
    assert fact(page, "seconds") == "0.25"
    assert "Sampler: Heun, CFG scale: 7" in page.locator("#infotext").inner_text()
    assert page.locator("#stage img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 64
    visited = []
    for key in ("ArrowUp", "ArrowLeft", "ArrowLeft", "ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
        visited.append((fact(page, "sampler"), fact(page, "cfg_scale"), fact(page, "status")))
    assert visited == [
        ("Euler a", "7", "done"), ("Euler a", "1", "failed"), ("Euler a", "1", "failed"),
        ("Heun", "1", "done"), ("LMS", "1", "done"), ("LMS", "7", "done"),
    ]  # fmt: skip
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    expect(page.locator("[data-number='10']")).to_be_focused()  # once the page has heard of closing


@pytest.mark.slow
def test_arrows_step_over_what_was_skipped(page, demo):
    _, path = demo
    open_page(page, path, "#x=cfg_scale&y=sampler&at=0.0.1")
    assert page.locator("#grid .skipped").count() == 1
    page.focus("[data-number='2']")
    page.keyboard.press("ArrowDown")
    expect(page.locator("[aria-label='cell 9, done']")).to_be_focused()


@pytest.mark.slow
def test_the_link_holds_the_state(page, demo, browser):
    _, path = demo
    open_page(page, path)
    page.select_option("#axis-x", label="steps")
    page.select_option("#size", "256")
    page.click("[data-number='9']")
    link = page.url
    again = browser.new_page()
    again.goto(link)
    for selector in ("#axis-x", "#axis-y", "#size", "#value-1"):
        assert again.input_value(selector) == page.input_value(selector)
    assert again.locator("#heading").inner_text() == page.locator("#heading").inner_text()
    again.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "link", ["#x=nothing&y=nothing", "#at=99.-1.x&cell=999&size=7", "#%", "#x=steps&y=steps"]
)
def test_a_wrong_link_still_shows_the_table(page, demo, link):
    _, path = demo
    open_page(page, path, link)
    assert numbers(page)


@pytest.mark.slow
def test_labels_stay_in_sight(page, tmp_path):
    plan = make_plan({"steps": range(1, 31), "seed": range(20)}, Layout("steps", "seed"))
    open_page(page, build(tmp_path, plan, lambda cell: None))
    page.evaluate("document.getElementById('scroll').scrollTo(1500, 1200)")
    for selector in ("thead th:nth-child(15)", "tbody tr:nth-child(12) th"):
        box = page.locator(selector).bounding_box()
        assert box["x"] >= 0 and 0 <= box["y"] < 800


@pytest.mark.slow
def test_a_lost_picture_says_so(browser, tmp_path):
    path = build(tmp_path, make_plan({"steps": [1, 2]}, Layout("steps")))
    lost, _ = sorted((tmp_path / "images").iterdir())
    lost.unlink()
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector(".missing")
    assert lost.name in page.locator(".missing").inner_text()
    page.close()


@pytest.mark.slow
def test_hostile_text_does_nothing_in_a_browser(page, tmp_path):
    plan = make_plan(
        {HOSTILE: ["x"], "prompt": [HOSTILE, "calm"]},
        Layout("prompt", HOSTILE),
        name=HOSTILE,
        plugins=[score("look")],
    )
    columns = {f"look.{HOSTILE}": HOSTILE}
    path = build(
        tmp_path,
        plan,
        lambda cell: failed(cell, HOSTILE) if cell.number == 1 else done(cell, columns=columns),
    )
    open_page(page, path)
    page.click("[data-number='1']")
    page.keyboard.press("ArrowRight")
    assert page.title() == HOSTILE and page.locator("#name").inner_text() == HOSTILE
    assert page.locator("script").count() == 2 and page.locator("img").count() == 2
    assert fact(page, f"look.{HOSTILE}") == HOSTILE


@pytest.mark.slow
def test_injected_markup_would_be_stopped_by_the_policy(browser, demo):
    _, path = demo
    page = browser.new_page()
    page.goto(path.as_uri())
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"x\" onerror=\"document.title=1\"><a></a>')"
    )
    page.wait_for_timeout(200)
    assert page.title() == "cats"
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_colour_scheme(browser, demo, scheme):
    page = browser.new_page(color_scheme=scheme)
    page.goto(demo[1].as_uri())
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 384) == (scheme == "light")
    page.close()


@pytest.mark.slow
def test_some_thousand_cells_are_shown(page, tmp_path):
    plan = make_plan({"steps": range(1, 101), "seed": range(50)}, Layout("steps", "seed"))
    open_page(page, write_gallery(plan, {}, tmp_path))
    assert len(numbers(page)) == 5000
    page.click("[data-number='2525']")
    page.keyboard.press("ArrowRight")
    assert fact(page, "steps") == "52"


@pytest.mark.slow
def test_the_overview_leads_to_the_jobs(page, tmp_path):
    build(tmp_path / "cats & dogs #1", make_plan({"steps": [1, 2]}))
    open_page(page, write_overview(tmp_path))
    assert page.locator("img").evaluate("image => image.naturalWidth") == 64
    page.click("ul.jobs a")
    assert page.locator("#name").inner_text() == "cats"
