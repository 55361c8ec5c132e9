from dataclasses import replace

import pytest

from farm.cell import PluginUse
from farm.cluster.tasks import cost, tasks_of
from tests.cluster.painter import cells


def test_cells_of_the_same_picture_and_plugins_are_one_task():
    first, other = cells(["cat", "dog"])
    twin = replace(first, number=3, coordinates=(3,))
    scored = replace(first, number=4, plugins=(PluginUse("sharpness", "1", "{}", touches_pixels=False),))
    tasks = tasks_of([first, other, twin, scored])
    assert [task.payload for task in tasks] == [(first, twin), (other,), (scored,)]


def test_a_task_is_of_the_wave_of_the_first_cell_that_wants_it():
    first, other = cells(["cat", "dog"])
    twin = replace(first, number=3, coordinates=(3,))
    tasks = tasks_of([first, other, twin], lambda cell: cell.number)
    assert [(task.payload, task.wave) for task in tasks] == [((first, twin), 1), ((other,), 2)]


def test_a_checkpoint_in_two_precisions_is_two_weights_to_load():
    first, other = cells(["cat", "dog"])
    precise = replace(first, settings=replace(first.settings, precision="fp32"), key="precise")
    one, two, three = (task.weights for task in tasks_of([first, other, precise]))
    assert one == two != three


def test_a_cell_needs_its_key():
    with pytest.raises(ValueError, match="cell 1 has no key"):
        tasks_of([replace(cells(["cat"])[0], key="")])


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({"steps": 40}, 2),
        ({"cfg_scale": 1.0}, 0.5),
        ({"width": 1024}, 2),
        ({"sampler": "Heun"}, 39 / 20),
    ],
)
def test_cost_goes_by_rows_and_pixels(changes, times):
    cell = cells(["cat"], steps=20)[0]
    changed = replace(cell, settings=replace(cell.settings, **changes))
    assert cost(changed) == pytest.approx(times * cost(cell))


def test_cost_goes_by_the_evaluations_that_the_plan_counted():
    cell = cells(["cat"], steps=20)[0]
    assert cost(replace(cell, evaluations=60)) == pytest.approx(3 * cost(cell))
    unknown = replace(cell, settings=replace(cell.settings, sampler="Of a plugin"), evaluations=20)
    assert cost(unknown) == cost(cell)
