import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from farm import hooks

DOCS = Path(__file__).parents[1] / "docs" / "plugins.md"
SPECIFICATIONS = {
    name: value
    for name, value in vars(hooks).items()
    if inspect.isfunction(value) and hasattr(value, "farm_spec")
}


def test_docs_show_every_hook_with_its_exact_signature_and_sentence():
    text = DOCS.read_text(encoding="utf-8")
    documented = set(re.findall(r"^def \w+\(.*\) -> .*[^:]$", text, flags=re.MULTILINE))
    exact = {f"def {name}{inspect.signature(hook)}".replace("'", "") for name, hook in SPECIFICATIONS.items()}
    assert documented == exact
    prose = " ".join(text.split())
    assert [name for name, hook in SPECIFICATIONS.items() if inspect.getdoc(hook) not in prose] == []


@pytest.mark.parametrize("name", sorted(set(hooks.__all__) - {"PROJECT", "hookspec"}))
def test_docs_list_every_name_a_plugin_may_import(name):
    section = DOCS.read_text(encoding="utf-8").split("## What a plugin may import")[1].split("##")[0]
    assert f"`{name}`" in section


def test_hooks_import_without_pillow_or_numpy():
    code = "import sys, farm.hooks; print({'PIL', 'numpy', 'torch', 'ray'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"flagged": True}, "needs a reason"),
        ({"flagged": True, "reason": "x", "action": "blur"}, "action 'blur' is none of blackout, mark"),
    ],
)
def test_verdict_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        hooks.Verdict(**arguments)


def test_plugin_settings_refuse_unknown_names_and_changes():
    class Some(hooks.PluginSettings):
        strength: float = 1.0

    with pytest.raises(ValidationError, match="stength"):
        Some.model_validate({"stength": 2})
    with pytest.raises(ValidationError, match="frozen"):
        Some().strength = 2.0
