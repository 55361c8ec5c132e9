import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from farm.errors import BadInput
from farm.job import Vocabulary, load_job
from farm.plugins import NoSettings, PluginError, find_plugins

SCORE = "from farm.hooks import hookimpl\n@hookimpl\ndef score_image(image): return {'one': 1}\n"
TRANSFORM = "from farm.hooks import hookimpl\n@hookimpl\ndef transform_image(image): return image\n"
SHIPPED = Path(__file__).parents[1] / "plugins"


def write(folder, name, source):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(dedent(source), encoding="utf-8")
    return folder


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a real package that offers a plugin, as pip would leave it on disk."""

    def _install(package, name, source, target="", version="2.5"):
        site = tmp_path / f"site-{package}"
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").write_text(source)
        info = site / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[farm]\n{name} = {package}{target}\n")
        monkeypatch.syspath_prepend(str(site))

    yield _install
    for module in [name for name in sys.modules if name.startswith("stranger")]:
        del sys.modules[module]


def test_shipped_plugins_say_what_a_job_needs_to_know():
    plugins = find_plugins([SHIPPED])
    assert {"lanczos", "nsfw", "sharpness"} <= set(plugins)
    assert [plugins[name].touches_pixels for name in ("lanczos", "nsfw", "sharpness")] == [True, True, False]
    assert all(plugins[name].version.isdigit() for name in ("lanczos", "nsfw", "sharpness"))
    assert plugins["sharpness"].settings_model is NoSettings


def test_a_later_folder_overrides_by_name(tmp_path):
    first = write(write(tmp_path / "a", "same", SCORE), "other", SCORE)
    second = write(tmp_path / "b", "same", TRANSFORM)
    plugins = find_plugins([first, second])
    assert sorted(set(plugins) & {"same", "other"}) == ["other", "same"]
    assert plugins["same"].touches_pixels
    assert plugins.load("same").origin == str(second / "same.py")


def test_underscored_files_are_no_plugins(tmp_path):
    assert "_part" not in find_plugins([write(tmp_path, "_part", SCORE)])


def test_nothing_is_imported_until_asked_for(tmp_path):
    marker = tmp_path / "ran"
    write(tmp_path, "noisy", f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n{SCORE}")
    plugins = find_plugins([tmp_path])
    assert "noisy" in plugins
    assert "noisy" in list(plugins)
    assert not marker.exists()
    assert plugins.load("noisy") is plugins.load("noisy")
    assert marker.exists()


def test_planning_with_every_shipped_plugin_imports_nothing_heavy():
    code = f"""
import sys, pathlib
from farm.plugins import find_plugins
plugins = find_plugins([pathlib.Path({str(SHIPPED)!r})])
assert len([plugins[path.stem] for path in pathlib.Path({str(SHIPPED)!r}).glob("*.py")]) >= 3
print({{"torch", "ray", "numpy", "PIL", "nudenet", "onnxruntime", "cv2"}} & set(sys.modules))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_a_file_without_version_is_versioned_by_its_source(tmp_path):
    before = find_plugins([write(tmp_path, "mine", TRANSFORM)])["mine"].version
    # Same size and second: a cached bytecode file could not tell the two apart.
    after = find_plugins([write(tmp_path, "mine", TRANSFORM.replace("return image", "return  mage"))])
    assert before.startswith("source-")
    assert after["mine"].version != before
    assert find_plugins([write(tmp_path, "mine", TRANSFORM)])["mine"].version == before
    declared = find_plugins([write(tmp_path, "mine", TRANSFORM + "__version__ = '7'\n")])["mine"]
    assert declared.version == "7"


@pytest.mark.parametrize(
    ("source", "target", "version"),
    [
        (TRANSFORM, "", "2.5"),
        (TRANSFORM + "__version__ = '3'\n", "", "3"),
        (
            "import farm.hooks as f\nclass P:\n  @f.hookimpl\n  def screen_image(self, image): ...\np = P()",
            ":p",
            "2.5",
        ),
    ],
)
def test_an_installed_package_offers_a_plugin(install, source, target, version):
    install("stranger_one", "far-off", source, target)
    plugins = find_plugins([SHIPPED])
    assert "stranger_one" not in sys.modules
    assert plugins["far-off"].version == version
    assert plugins["far-off"].touches_pixels
    assert plugins.load("far-off").origin == "package stranger_one"


def test_a_file_overrides_an_installed_package(install, tmp_path):
    install("stranger_two", "same", TRANSFORM)
    assert not find_plugins([write(tmp_path / "own", "same", SCORE)])["same"].touches_pixels


def test_two_packages_with_one_name_are_refused(install):
    install("stranger_three", "same", TRANSFORM)
    install("stranger_four", "same", TRANSFORM)
    with pytest.raises(PluginError, match=r"stranger_\w+ and package stranger_\w+\): two installed packages"):
        find_plugins([])["same"]


FROM = "from farm.hooks import *\n"
BROKEN = {
    "misspelt": (
        FROM + "@hookimpl\ndef transfrom_image(image): ...",
        r"unknown hook 'transfrom_image'; did you mean transform_image\? There are samplers, ",
    ),
    "nothing_like_it": (
        FROM + "@hookimpl\ndef zap(image): ...",
        "unknown hook 'zap'; there are samplers, schedules, score_image, ",
    ),
    "bare": (SCORE + "def screen_image(image): ...", "screen_image stands there without @hookimpl"),
    "empty": ("x = 1", "implements no hook; there are samplers, schedules, score_image, screen_image, "),
    "only_settings": (
        FROM + "@hookimpl\ndef settings_model(): return PluginSettings",
        "implements no hook",
    ),
    "twice": (
        TRANSFORM + "@hookimpl(specname='transform_image')\ndef again(image): ...",
        "implements transform_image twice",
    ),
    "argument": (FROM + "@hookimpl\ndef score_image(picture): ...", "cannot be loaded: .*picture"),
    "missing": ("import no_such_library", "cannot be loaded: ModuleNotFoundError: .*no_such_library"),
    "syntax": ("def (:", "cannot be loaded: SyntaxError: "),
    "exits": ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
    "bad.name": (SCORE, "letters, digits"),
    "no_model": (
        SCORE + "@hookimpl\ndef settings_model(): return {'a': 1}",
        r"settings_model gave \{'a': 1\}, not a class derived from farm.hooks.PluginSettings",
    ),
    "lax_model": (
        SCORE
        + "import pydantic\nclass M(pydantic.BaseModel): ...\n@hookimpl\ndef settings_model(): return M",
        "M lets misspelt settings pass; derive it from farm.hooks.PluginSettings",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_named_and_harms_nobody_else(tmp_path, name):
    source, message = BROKEN[name]
    plugins = find_plugins([write(write(tmp_path, name, source), "good", SCORE)])
    before = set(sys.modules)
    for _ in range(2):
        with pytest.raises(PluginError, match=message) as caught:
            plugins[name]
        assert str(caught.value).startswith(f"plugin {name!r} ({tmp_path / name}.py)")
        assert "\n" not in str(caught.value)
    assert plugins["good"].name == "good"
    if "cannot be loaded: " in message and name != "argument":
        assert not {module for module in set(sys.modules) - before if module.endswith(name)}


def test_an_unavailable_plugin_speaks_for_itself(tmp_path):
    source = "from farm.hooks import Unavailable\nraise Unavailable('needs the extra: pip install x')"
    with pytest.raises(PluginError) as caught:
        find_plugins([write(tmp_path, "nsfw", source)])["nsfw"]
    assert str(caught.value) == "plugin 'nsfw' needs the extra: pip install x"


def test_a_hook_for_a_newer_farm_may_be_optional(tmp_path):
    source = SCORE + "@hookimpl(optionalhook=True)\ndef from_the_future(image): ..."
    assert find_plugins([write(tmp_path, "new", source)])["new"].name == "new"


def test_settings_resolve_postponed_annotations_of_the_file(tmp_path):
    source = (
        "from __future__ import annotations\n"
        + SCORE
        + (
            "from farm.hooks import PluginSettings\nKind = int\nclass M(PluginSettings):\n  kind: Kind = 3\n"
            "@hookimpl\ndef settings_model(): return M\n"
        )
    )
    assert find_plugins([write(tmp_path, "late", source)])["late"].settings_model().kind == 3


def test_a_job_reports_a_broken_plugin_at_its_line_beside_its_other_mistakes(tmp_path):
    write(tmp_path, "broken", "import no_such_library")
    write(tmp_path, "fine", SCORE)
    job = tmp_path / "job.yaml"
    job.write_text("model: m\nprompt: a cat\nplugins:\n  fine: {}\n  broken: {}\n  fien: {}\n")
    with pytest.raises(BadInput) as caught:
        load_job(job, Vocabulary({"m": ()}, find_plugins([tmp_path])))
    broken, misspelt = caught.value.problems
    assert broken.where == f"{job}:5"
    assert broken.what.startswith("plugins: plugin 'broken' (")
    assert misspelt.where == f"{job}:6"
    assert "fine" in misspelt.what
