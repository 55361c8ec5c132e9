import ast
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "ray", "diffusers", "transformers", "numpy", "pandas")


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_the_layer_contract_holds():
    answer = python("from importlinter.cli import lint_imports_command; lint_imports_command()")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "Data flows one way KEPT" in answer.stdout


def test_every_module_has_its_place_in_the_contract():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [contract] = settings["tool"]["importlinter"]["contracts"]
    placed = {name.strip().removeprefix("farm.") for layer in contract["layers"] for name in layer.split("|")}
    modules = {path.stem for path in (ROOT / "farm").glob("[!_]*.py")}
    packages = {path.parent.name for path in (ROOT / "farm").glob("*/__init__.py")}
    assert placed == modules | packages


def test_planning_loads_nothing_heavy():
    modules = "farm.plan, farm.job, farm.hooks, farm.plugins, farm.sampling, farm.workspace"
    answer = python(f"import sys, {modules}; print(sorted(set({HEAVY}) & set(sys.modules)))")
    assert answer.stdout.strip() == "[]", answer.stderr


def imported(path):
    """The top-level packages that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


def test_only_the_cluster_uses_ray():
    users = {
        path.relative_to(ROOT / "farm") for path in (ROOT / "farm").rglob("*.py") if "ray" in imported(path)
    }
    assert {path.parts[0] for path in users} == {"cluster"}
