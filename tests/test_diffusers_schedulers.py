import inspect
import re
import subprocess
import sys

import diffusers
import pytest

from farm.diffusers_schedulers import NEEDS, BadScheduler, scheduler_facts, suited
from farm.sampling import BUILT_IN, SCHEDULER_STEP_OPTIONS

every_class = pytest.mark.parametrize("name", sorted(suited()))


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_what_does_not_suit_is_refused(name: str) -> None:
    with pytest.raises(BadScheduler, match=re.escape(f"{name} of diffusers needs {NEEDS[name]}")):
        BUILT_IN.find(f"diffusers:{name}")


@every_class
def test_facts_are_those_of_the_class(name: str) -> None:
    facts, kind = scheduler_facts(name), getattr(diffusers, name)
    arguments = inspect.signature(kind.__init__).parameters
    assert list(facts.options) == list(arguments)[1:]
    for option, fact in facts.options.items():
        default = arguments[option].default
        assert fact.default == default
        assert not fact.words or default is None or default in fact.words
    step = inspect.signature(kind.step).parameters
    assert list(facts.step) == list(step)[4:]
    assert facts.order == kind.order


@every_class
def test_what_step_is_given_by_default_is_its_own_default(name: str) -> None:
    """So that only what somebody sets makes a difference; but for eta, where the pipeline decides."""
    step = inspect.signature(getattr(diffusers, name).step).parameters
    neutral = {"s_churn": 0, "s_tmin": 0, "s_tmax": float("inf"), "s_noise": 1}
    for option in set(SCHEDULER_STEP_OPTIONS) & set(step) - {"eta"}:
        assert step[option].default == neutral[option]
    assert BUILT_IN[f"diffusers:{name}"].eta == (0 if "eta" in step else None)


def test_neither_diffusers_nor_torch_is_imported() -> None:
    code = (
        "import sys; from farm.sampling import BUILT_IN;"
        "BUILT_IN.find('diffusers:UniPCMultistep(solver_order=3)');"
        "sys.exit(bool({'diffusers', 'torch', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
